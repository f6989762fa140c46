"""From prompts to masks: GrabCut, which is built in, and networks that are loaded when named."""
