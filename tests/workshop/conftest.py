from tests.clip_folder import clip_folder as clip_folder
