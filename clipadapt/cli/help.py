"""Texts of `--help`."""

from clipadapt.config.tree import conf_dir, options
from clipadapt.exports.formats import FORMATS

COMMANDS = {
    "fit": "adapt a frozen CLIP to a task and show what that gained (the default)",
    "compare": "run methods against each other and show them in one table",
    "choose": "find the best method for a task by cross-validation, and fit it",
    "evaluate": "measure a finished run again, or on other data",
    "predict": "name the classes of images with a finished run",
    "serve": "answer images over HTTP with a finished run",
    "demo": "show a page that answers images that are dropped onto it",
    "export": "write what a finished run learned for other tools",
    "list": "list the runs below a folder with their figures",
    "show": "show a finished run again",
    "mistakes": "show the test images that a finished run answers wrongly",
    "pack": "write what a finished run learned as a folder for others",
    "push": "write what a finished run learned to the Hugging Face hub",
    "explain": "show what a finished run looks at and has learned",
    "methods": "list the methods by what they need, or show one with its settings and paper",
    "data": "list the data there are, or look at every image of one",
}

GROUPS = {
    "backbone": "the frozen CLIP",
    "data": "the images and their classes",
    "task": "the default of task.views, which the data choose: fresh views, or the centre crop",
    "templates": "sentences around the class names in place of the data's: +templates=imagenet_80",
    "method": "what is learned",
    "adaptation": "parts to add: +adaptation@method.also.pixels=pixel_frame",
    "test_time": "what adapts to each test image: +test_time@method.test_time=mta",
    "optimizer": "optimizer@engine.optimizer=adamw",
    "schedule": "schedule@engine.schedule=constant; +schedule=quick: any method in at most 150 steps",
    "experiment": "whole runs under one name",
}

FIT = """\
clipadapt adapts a frozen CLIP to your images from a few of them a class, and shows the gain over zero-shot.

  clipadapt [fit] [key=value …]    {fit}
  clipadapt compare methods=[A,B]  {compare}
  clipadapt choose [minutes=10]    {choose}
  clipadapt evaluate run=DIR       {evaluate}
  clipadapt predict run=DIR images=PATH
                                   {predict}
  clipadapt serve run=DIR          {serve}
  clipadapt demo run=DIR           {demo}
  clipadapt export run=DIR format=onnx out=PATH
                                   {export}
  clipadapt list [folder=outputs]  {list}
  clipadapt show run=DIR           {show}
  clipadapt mistakes run=DIR       {mistakes}
  clipadapt pack run=DIR out=FOLDER
                                   {pack}
  clipadapt push run=DIR repo=user/name
                                   {push}
  clipadapt explain run=DIR        {explain}
  clipadapt methods                {methods}
  clipadapt data list|prepare|verify|audit
                                   {data}

Examples
  clipadapt                        CoOp on real handwritten digits, 16 images a class, on a laptop without network
  clipadapt data=folder data.root=my_images backbone=ViT-B-16 method=clip_adapter
                                   your own images (a folder a class) with CLIP's ViT-B/16
  clipadapt -m shots=1,2,4,8,16 seed=1,2,3
                                   every combination, one run each

Choices (write group=name)
{groups}

Settings (write key=value; `clipadapt --cfg job` prints all of them with their values)
  shots=16                         images a class to learn from
  classes=base                     learn half of the classes, test on both halves: base to new
  seed=1                           which images those are, and every other draw
  engine.epochs=20                 how long to train; each method brings its paper's settings
  engine.precision=bf16            number format; engine.cpu=true stays off the GPU
  method.adaptation.n_ctx=4        a method's own knobs
  from=DIR                         start with what that finished run learned: more images, or new classes
  output=outputs rerun=true        where runs go; compute a finished one again

Options
  -m                               run every combination of the values listed with commas
  --cfg job                        show the settings instead of running
  --config-dir DIR                 your own YAML (DIR/method/mine.yaml) and the modules beside it
  -sc install=bash                 print tab completion: eval "$(clipadapt -sc install=bash)"
  --hydra-help, --info             Hydra's own help and inner view

Read more: README.md; every setting is explained in {conf}."""

COMPARE = """\
clipadapt compare methods=[A,B] [data=[…]] [shots=[…]] [seed=[…]] [key=value …]

{compare}.

Every combination is one run, the same and in the same directory as without `compare`. What is finished is read, so that
a stopped comparison goes on, and a larger one computes what is missing. Tables (Markdown, CSV, JSON) and curves go to
outputs/compare/. A run that fails is shown with the reason, and the others go on; the exit code is 0 if any succeeds.

Examples
  clipadapt compare methods=[coop,clip_adapter] shots=[1,4,16] seed=[1,2,3]
                                   curves with their intervals on handwritten digits
  clipadapt compare methods=all data=drawn +schedule=quick
                                   a look at every method, at most 150 steps each, marked as such
  clipadapt compare methods=all data=[digits,drawn] engine.precision=bf16
                                   further settings hold for all runs

Where the shell wants brackets quoted, commas alone will do: methods=coop,clip_adapter.

Choices
{groups}"""

CHOOSE = """\
clipadapt choose [minutes=10] [methods=[A,B]] [data=…] [shots=…] [seed=…] [key=value …]

{choose}, in so many minutes. `clipadapt method=auto …` does the same in ten.

Methods are compared by cross-validation on the images to learn from: those on features alone first, which takes
seconds, then the others, of which the better half goes on with more steps, again and again. The best one is fitted to
all images, as a run like any other, whose settings say how it was chosen. Test images are never looked at. With one
image a class the method is taken that has the best published accuracy after one shot. Methods that need unlabelled
images, a second backbone or the test images take part only where methods=[…] names them.

The table goes to outputs/choose/; the same command shows the run again, rerun=true chooses again. The score of the
best of many is a little too good: the test images say what it is worth.

Examples
  clipadapt choose data=folder data.root=my_images minutes=10
  clipadapt choose data=folder data.root=my_images backbone=ViT-B-32 shots=all minutes=30
  clipadapt choose methods=[zero_shot,tip_adapter_f,coop] minutes=2

Choices
{groups}"""

EVALUATE = """\
clipadapt evaluate run=DIR [data=NAME data.key=value … task.skip_broken=true classes=data|run]
                   [output=FILE.json] [pretrained=FILE]

{evaluate}: all figures that a run shows. output= writes them to a new file. On other data
their classes compete with each other, as in the papers; with classes=run all classes of the run do, as when it is
deployed.

Examples
  clipadapt evaluate run=outputs/digits/tiny/coop/shots16-seed1
  clipadapt evaluate run=runs/mine data=folder data.root=more_images output=figures.json
  clipadapt evaluate run=outputs/imagenet/ViT-B-16/coop/shots16-seed1 data=imagenet_a
  clipadapt evaluate run=runs/own --config-dir mine     a run with an adaptation of your own

Choices
{groups}"""

PREDICT = """\
clipadapt predict run=DIR images=PATH [format=table|csv|json] [output=FILE] [top=K] [skip_broken=true]
                  [threshold=P | reject=SHARE] [unknown=TEXT] [coverage=SHARE] [calibrate=true]

{predict}: class names and probabilities. PATH is a file, a folder or a pattern.
top=5 shows the five most probable classes of each image. output=answers.csv (or .json) writes a new file, whole or not
at all. threshold=0.5 answers "none of these" where no class has that probability, and unknown=TEXT says it otherwise.
reject=0.05 answers "none of these" where an image is less like the classes than 95 % of their own images; coverage=0.9
adds sets of classes that hold the right one for 90 % of images; calibrate=true scales probabilities by a temperature,
so that they are right as often as they say. These three are set on the run's validation images.
An image that can't be read has a row with the reason, and the exit code is 2; skip_broken=true leaves it out.

Examples
  clipadapt predict run=outputs/digits/tiny/coop/shots16-seed1 images=digit.png
  clipadapt predict run=runs/mine images=photos output=answers.csv top=5
  clipadapt predict run=runs/mine 'images=photos/*.jpg' format=json
  clipadapt predict run=runs/mine images=photos reject=0.05 coverage=0.9"""

SERVE = """\
clipadapt serve run=DIR [host=127.0.0.1] [port=8000] [max_images=64] [max_request_mb=32] [max_pixels=50000000]
                [max_queue=256] [max_batch=64] [max_wait_ms=5]

{serve}, until Ctrl-C or SIGTERM; requests that were taken are still answered.

  POST /predict                    files of a form, or JSON with images in base64; ?top=3, ?reject=0.05, ?coverage=0.9
                                   and ?calibrate=true as for clipadapt predict
  GET /health, GET /metrics        whether it answers; counts and times in the format of Prometheus

Images of all requests go through the model together, at most max_batch of them, after a wait of at most max_wait_ms. A
request that is too large, or has a broken image, is refused in one sentence; so is one beyond max_queue images that
wait. Only this machine reaches the server, unless host=0.0.0.0 says otherwise: it asks for no password.
It needs FastAPI: pip install 'clipadapt[serve]'.

Examples
  clipadapt serve run=outputs/digits/tiny/coop/shots16-seed1
  curl -F image=@photo.jpg 'http://127.0.0.1:8000/predict?top=3'"""

DEMO = """\
clipadapt demo run=DIR [run=OTHER …] [host=127.0.0.1] [port=7860] [--config-dir DIR]
clipadapt demo run=DIR [run=OTHER …] export=FOLDER

{demo}: the classes with their probabilities, of several runs side by side;
on request where the models look, and the nearest of the images that were learned from, if they are still there. Other
class names can be typed in, for methods that allow it. Nothing is sent anywhere, and no network is needed; only this
machine reaches the page, unless host=0.0.0.0 says otherwise. export=FOLDER writes the page and what was learned as a
folder that a Space of the Hugging Face hub runs. It needs Gradio: pip install 'clipadapt[demo]'.

Examples
  clipadapt demo run=outputs/digits/tiny/coop/shots16-seed1
  clipadapt demo run=runs/coop run=runs/lora port=8080
  clipadapt demo run=runs/coop export=my_space"""

EXPORT = """\
clipadapt export run=DIR format=FORMAT out=PATH [key=value …] [--config-dir DIR]

{export}. PATH is a folder, which may not be there yet. What was written is compared
with the run on its test images, images=256 of them at most.

Formats
{formats}

Options
  opset=18                         of onnx: the version of its operations
  preprocess=true                  of onnx: images of any size in, bytes of RGB; resizing and cropping are in the graph
  quantize=dynamic                 of onnx: another graph with int8 weights, and the accuracy that it loses
  compile=true                     of torch: compiled for this machine, too, by AOTInductor; needs a C++ compiler

Examples
  clipadapt export run=outputs/digits/tiny/coop/shots16-seed1 format=onnx out=digits_onnx
  clipadapt export run=runs/mine format=onnx out=mine_onnx preprocess=true quantize=dynamic
  clipadapt export run=runs/mine format=classifier out=mine_weights"""

LIST = """\
clipadapt list [folder=outputs]

{list}: the leading figure of each, and why one has none.

Examples
  clipadapt list
  clipadapt list folder=outputs/digits"""

SHOW = """\
clipadapt show run=DIR

{show}: its plan and its figures, after a check of its files.

Examples
  clipadapt show run=outputs/digits/tiny/coop/shots16-seed1"""

MISTAKES = """\
clipadapt mistakes run=DIR [--config-dir DIR]

{mistakes}, by class and answer: the most frequent confusions first, and in each the
most confident answers; beside each image the three images it learned from that are nearest, by the cosine of frozen
features. The same is in the run's directory as a page, mistakes.html, and as mistakes.csv.

Examples
  clipadapt mistakes run=outputs/digits/tiny/coop/shots16-seed1"""

PACK = """\
clipadapt pack run=DIR out=FOLDER [pretrained=FILE] [--config-dir DIR]

{pack}: the learned tensors, what is known of them, and a model card;
no paths, no names of this machine, not the backbone's weights. FOLDER takes the place of a run in every command below.
pretrained=FILE gives the backbone's weights where they aren't where the run had them.

Examples
  clipadapt pack run=outputs/digits/tiny/coop/shots16-seed1 out=my_model
  clipadapt predict run=my_model images=photos
  clipadapt evaluate run=my_model data=folder data.root=other_images"""

PUSH = """\
clipadapt push run=DIR repo=user/name [private=true] [revision=BRANCH] [message=TEXT] [pretrained=FILE]

{push}, as clipadapt pack writes it to a folder. Log in first with `hf auth login`. A
repository that isn't there is made; a model card that is there stays. It is read by its name, with a revision behind @.

Examples
  clipadapt push run=outputs/digits/tiny/coop/shots16-seed1 repo=me/digits private=true
  clipadapt predict run=me/digits images=photos
  clipadapt predict run=me/digits@v2 images=photos"""

EXPLAIN = """\
clipadapt explain run=DIR [images=PATH] [count=8] [out=FOLDER] [--config-dir DIR]

{explain}, in the folder explain/ of its directory, or that of out=:

  words.csv                        the words nearest to each learned context vector, by Euclidean distance, as CoOp's
                                   authors print them; the table shows those of the first context
  attention.png                    where the image tower looks (attention rollout), in test images or those of images=
  class_weights.png                class weights before and after, in the plane of their two principal components

A part that the method or the backbone doesn't have is told in one sentence. An artifact needs images= and out=.

Examples
  clipadapt explain run=outputs/digits/tiny/coop/shots16-seed1
  clipadapt explain run=runs/mine images=photos count=4"""

METHODS = """\
clipadapt methods [NAME] [--config-dir DIR]

{methods}; those of your own in DIR/method/*.yaml too.

Examples
  clipadapt methods
  clipadapt methods coop
  clipadapt methods --config-dir mine
  clipadapt method=clip_adapter        runs one"""


DATA = """\
clipadapt data list [--config-dir DIR]
clipadapt data prepare NAME [data.key=value …]
clipadapt data verify NAME [data.key=value …] [duplicates=true]
clipadapt data audit NAME [data.key=value …] [backbone=…]

{data}.

`list` says of each whether it is there, or what it needs.

`prepare` fetches what can be fetched: the papers' data sets but for ImageNet and ImageNet-C, prepared like CoOp's, from
a mirror on the Hugging Face hub; those of torchvision and of the hub itself.

`verify` decodes every image of every split, counts them, and lists all files that are missing or broken, classes that
a copy of ImageNet lacks, classes whose names are the same to CLIP, and equal images in several splits or under several
labels; the exit code is 2 where there are any. Images of one colour are listed, too. A run looks at its own images
before it starts; task.skip_broken=true leaves broken ones out of it. duplicates=true lists nearly equal images, too, by
the features of backbone=… (tiny) with a cosine of 0.985 or more, duplicates=0.95 those with 0.95.

`audit` lists labels that are probably wrong: a linear probe on the features of backbone=… learns from four fifths of
the images and judges the labels of the others, for all fifths. A page with the images and CSV go to outputs/audit/. It
needs cleanlab: pip install 'clipadapt[audit]'.

Examples
  clipadapt data list
  clipadapt data prepare oxford_pets data.home=/datasets
  clipadapt data verify folder data.root=my_images
  clipadapt data verify folder data.root=my_images backbone=ViT-B-32 duplicates=0.95
  clipadapt data verify data=folder data.root=my_images     the same, as it is written for a run
  clipadapt data audit folder data.root=my_images backbone=ViT-B-16

Choices
{groups}"""


def help_for(command: str | None, config_dir: str | None) -> str:
    """Return the help text of a command, with the names of each group's files."""
    texts = {
        "compare": COMPARE,
        "choose": CHOOSE,
        "evaluate": EVALUATE,
        "predict": PREDICT,
        "serve": SERVE,
        "demo": DEMO,
        "export": EXPORT,
        "list": LIST,
        "show": SHOW,
        "mistakes": MISTAKES,
        "pack": PACK,
        "push": PUSH,
        "explain": EXPLAIN,
        "methods": METHODS,
        "data": DATA,
    }
    learned = ["method", "data", "backbone"]
    groups = {"compare": learned, "choose": learned, "evaluate": ["data"], "data": ["data"]}.get(
        command or "fit", list(GROUPS)
    )
    lines = [choice(group, config_dir) for group in groups]
    formats = "\n".join(f"  {name:<32} {form.title}" for name, form in FORMATS.items())
    values = {**COMMANDS, "groups": "\n".join(lines), "formats": formats, "conf": conf_dir()}
    return texts.get(command or "fit", FIT).format(**values)


def choice(group: str, config_dir: str | None) -> str:
    """Return a group's lines of the help text: its name, its description and its options."""
    return f"  {group:<12} {GROUPS[group]}\n  {'':<12} {', '.join(options(group, config_dir))}"
