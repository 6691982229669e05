"""`sam2long annotate`: a page in the browser to prompt, track, correct and export.

store.py      masks.jsonl as it grows, and what the tracker thought of each mask
prompt.py     what a user says: objects and prompts
project.py    the folder: objects, prompts, masks, what is needed to go on after a kill; takeover.py: of a finished run
annotator.py  what a user can do; runs in one thread, which owns the model
tracking.py   the tracker: its state on disk, passes over the video
jobs.py       that thread, and the events that tell every page what happened
desk.py       all of it together, and what a page is shown
app.py        the HTTP side; security.py, schemas.py, uploads.py: who may ask, and what a request may say
static/       the page: HTML, CSS and JavaScript modules, served as they are
"""
