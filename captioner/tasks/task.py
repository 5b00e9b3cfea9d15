"""The contract between verbs and captioners.

`caption`, `evaluate`, `export` and the other verbs take a *task* and use only
what this page defines. So they work with every captioner: `ImageCaptioner`,
`EnsembleCaptioner`, or a class of your own that has four methods:

    convert(image)        one photo, uint8 RGB (H, W, 3) -> what the model takes
    write(batch)          a list of converted photos -> a list of `GenerateResult`
    fingerprint()         a str that changes when captions may change
    describe()            a dict for people and manifests

The data flows like this, on this machine or on many:

    file -> uint8 RGB -> task.convert -> [one, one, ...] -> task.write -> results
                         (in threads or other processes)    (in threads)
"""

import abc

from captioner.tasks.forked import refuse_if_forked

# What a task may be able to do, by name, and what it has then.
ABILITIES = {
    "scores": "scores",  # `score` of each result
    "hypotheses": "more than one caption for each photo",  # `replaced(num_captions=3)`
    "attention": "attention maps",  # `generate_results(photo, attention=True)`
    "confidence": "confidence in its captions",  # `confidence` of each result
    "prompts": "prompts",  # `write(batch, prompts)`
    "features": "image features",  # `encode(batch)`, float32 (B, P, E)
    # `convert` is made of TensorFlow ops; `image_spec`, `variables` and
    # `caption_images` are those of `ImageCaptioner`.
    "graph": "a form as a TensorFlow graph",
}


class Task(abc.ABC):
    """A captioner as the verbs see it.

    Attributes:
        abilities: frozenset of names in `ABILITIES`. A verb asks for what it needs with
            `require`; a task leaves out the methods of abilities that it lacks.
        image_size: (height, width) in pixels that `convert` makes of every photo, or
            None. Decoders may reduce large photos before `convert` sees them, to no
            less than twice this size.

    Example:

    ```python
    class Constant(captioner.Task):
        def convert(self, image):
            return image.mean(axis=(0, 1))

        def write(self, batch, prompts=None):
            return [captioner.GenerateResult("a photo") for _ in batch]

        def fingerprint(self):
            return "constant-1"

        def describe(self):
            return {"task": "Constant"}

    list(captioner.caption("photos", Constant(), output="captions.csv"))
    ```
    """

    abilities = frozenset()
    image_size = None

    @abc.abstractmethod
    def convert(self, image):
        """Prepare one photo for the model.

        `task.convert` is picklable by itself, so that decoding processes can run it
        without the model: a method of a small object, or a property that returns a
        function or an object of its own. It is called by several threads at once.

        Args:
            image: uint8 array (H, W, 3), RGB, upright.

        Returns:
            An array or tensor, or a nest of them, of the same structure and dtype for
            every photo.
        """

    @abc.abstractmethod
    def write(self, batch, prompts=None):
        """Caption photos. It is called by several threads at once.

        Args:
            batch: list of B converted photos.
            prompts: list of B strings, what each caption answers or continues, if the
                task has the ability "prompts"; None otherwise.

        Returns:
            List of B `GenerateResult`.
        """

    @abc.abstractmethod
    def fingerprint(self):
        """A str, as a sha256 in hex, that tells this task from others.

        Equal fingerprints mean equal captions: it covers the weights, the vocabulary,
        the size of photos, and the sampler. A journal refuses to continue with another.
        """

    @abc.abstractmethod
    def describe(self):
        """A flat dict of JSON values for manifests, reports and protocols.

        "task" is the name of the class; the rest are the settings that decide its
        captions, such as "sampler" and its options.
        """

    def replaced(self, sampler=None, num_captions=None, num_threads=None):
        """A task with the same weights and other options.

        Args:
            sampler: a `Sampler` or its name; None keeps its own.
            num_captions: how many hypotheses each result has at most.
                Needs the ability "hypotheses" above 1.
            num_threads: how many threads one call of `write` may use, for a verb that
                calls it many times at once; the task may then choose a faster engine
                with the same captions.

        Returns:
            A `Task`; this one stays as it is.

        Raises:
            ValueError: the task cannot do that.
        """
        if sampler is not None:
            raise ValueError(
                f"{type(self).__name__} has no sampler. Received: sampler={sampler}"
            )
        if (num_captions or 1) > 1:
            self.require("hypotheses")
        return self

    def require(self, *abilities):
        """Raise an error of one line if the task lacks an ability.

        Args:
            *abilities: names in `ABILITIES`.

        Raises:
            ValueError: it lacks one of them.
        """
        for ability in abilities:
            if ability not in ABILITIES:
                raise ValueError(
                    f"ability must be one of {', '.join(ABILITIES)}. "
                    f"Received: ability={ability}"
                )
            if ability not in self.abilities:
                raise ValueError(
                    f"{type(self).__name__} does not have {ABILITIES[ability]}. "
                    f"Received: ability={ability}"
                )

    def generate(self, images, batch_size=16, prompts=None):
        """Caption one photo, or many.

        Args:
            images: a path, encoded bytes, a PIL image, or RGB pixels from 0 to 255, an
                array or tensor (H, W, 3) of any integer type; or a list, tuple or dict
                of them, nested or not. Many may be one array or tensor (B, H, W, 3), or
                a `tf.data.Dataset` of photos, in batches or not.
            batch_size: how many photos at a time.
            prompts: a str for all, or as many in the same nesting as the photos, for a
                task with the ability "prompts".

        Returns:
            A str, or as many in the same nesting.

        Raises:
            ImageError: a photo cannot be read.
            ValueError: there is no photo, or its pixels are not from 0 to 255.
        """
        import keras

        results = self.generate_results(images, batch_size, prompts)
        return keras.tree.map_structure(lambda result: result.text, results)

    def generate_results(self, images, batch_size=16, prompts=None):
        """Like `generate`, with scores and all else known about each caption.

        Returns:
            A `GenerateResult`, or as many in the same nesting.
        """
        from captioner.tasks.image_inputs import in_batches, to_pixels

        refuse_if_forked()
        if prompts is not None:
            self.require("prompts")

        def write(photos, prompts):
            batch = [
                self.convert(to_pixels(photo, self.image_size)) for photo in photos
            ]
            return self.write(batch, prompts)

        return in_batches(write, images, batch_size, prompts)
