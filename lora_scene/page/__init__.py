"""The web page: one file a step of the journey, made of Gradio, calling the library alone.

server.py    the page as a whole, served on this machine
desk.py      what every browser tab sees: one piece of work at a time, and how it is kept
draft.py     the things shown so far in the photos; immutable, so that undo is a step back
trainings.py trainings in processes of their own, one at a time
course.py    what a training's folder tells of it
pointing.py  a photo to point at, by mouse, finger or keys
shelf.py     what was drawn; the picture that is shown large is the one that is saved
..._step.py  photo, things, train, pictures, share
"""
