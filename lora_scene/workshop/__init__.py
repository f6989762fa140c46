"""Methods compared: protocols, runs, tables and studies; nothing else imports it."""
