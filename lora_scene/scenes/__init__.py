"""What is learnt from: photos, masks, handles; nothing here needs torch."""
