"""Attacks run over a whole data set, in pieces that are kept on disk."""

import dataclasses
import functools
import json
import time

import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf import errors
from mart_tf import noise
from mart_tf.data import archives
from mart_tf.evaluation import engine
from mart_tf.evaluation import estimate
from mart_tf.evaluation import pieces
from mart_tf.evaluation import shares
from mart_tf.evaluation import surrogates
from mart_tf.reports import results

# The key of the predictions without attack.
_NATURAL = "natural"


class Measurement:
    """Everything that is measured on one model and one set of examples.

    Args:
        subject: The `Subject` under attack.
        images: float32 array `[n, ...]`.
        labels: int32 array `[n]`.
        batch_size: Images in one pass through the network.
        seed: Of all noise, together with an example's place.
        kept: A `unfinished.Unfinished`.
        shown: What `progress.bar` yields.
        open_writer: Called with the predictions without attack for an
            `adversarial.Writer`; None where no images are saved.

    Attributes:
        predictions: Classes without attack, int32 `[n]`.
        samples: Examples of the strongest attack so far, or None.
        traces: A `Trace` of each attack so far that has a loss at each step.
        unscored: How many examples had NaN among their scores, by attack.
    """

    def __init__(
        self,
        subject,
        images,
        labels,
        batch_size,
        seed,
        kept,
        shown,
        open_writer=None,
    ):
        self._subject = subject
        self._batch_size = batch_size
        self._devices = {}
        if subject.on_device:
            self._devices = {
                name: subject.on_device(name) for name in shares.devices()
            }
        self._loops = {}
        self._images = images
        self._labels = labels
        self._seed = seed
        self._seeds = noise.seeds(seed, np.arange(len(labels))).numpy()
        self._kept = kept
        self._shown = shown
        observe = shown.opened("natural", len(labels), len(labels))
        started = time.perf_counter()
        if found := kept.read(_NATURAL):
            # Of a model that draws, others would make other work of it.
            self.predictions = found["predictions"]
            self._natural_seconds = float(found["seconds"])
        else:
            tf.random.set_seed(seed)
            self.predictions = self._predict(images)
            self._natural_seconds = time.perf_counter() - started
        self.correct = self.predictions == labels
        observe(len(labels), int((~self.correct).sum()), last=True)
        self.samples = None
        self.traces = []
        self.unscored = {"no attack": pieces.unscored(self.predictions)}
        self._writer = open_writer and open_writer(self.predictions)

    def natural(self):
        """The `Result` without attack."""
        return results.Result(
            "natural",
            self.correct,
            self._natural_seconds,
            len(self._labels),
            access="none",
            broken_after=np.where(self.correct, -1, 0).astype(np.int32),
        )

    def attack(self, name, attack):
        """The `Result` of an attack or an ensemble, from all correct ones."""
        if not attack.parts:
            return self._saved(self._one(name, name, attack, self.correct))
        parts, standing = [], self.correct
        tell_time = self._once_told(name)
        for number, (part, inner) in enumerate(attack.parts):
            label = f"{name}: {part}"
            left = [each for _, each in attack.parts[number:]]
            parts.append(
                self._one(
                    label,
                    label,
                    inner,
                    standing,
                    begins=functools.partial(tell_time, left),
                )
            )
            standing = parts[-1].outcome
        return self._saved(
            dataclasses.replace(
                parts[-1],
                name=name,
                seconds=sum(part.seconds for part in parts),
                attacked=parts[0].attacked,
                parameters=attack.parameters,
                access="gradients" if attack.needs_gradient else "queries",
                broken_after=None,
                parts=tuple(parts),
                nature=pieces.nature(attack),
            )
        )

    def transfer(self, name, attack):
        """The `Result` of an attack that was made on a surrogate.

        It goes all the way: the surrogate may be fooled long before the model
        under attack is.
        """
        craft = surrogates.Craft(attack, self._loop(int(self.correct.sum())))
        return self._saved(
            self._one(name, name, attack, self.correct, craft.run, "surrogate")
        )

    def sweep(self, name, attacks):
        """The `Sweep` of an attack over rising radii.

        Each radius starts from all correct examples: that accuracy falls as
        epsilon grows is looked for, not taken for granted.

        Args:
            name: The attack's spec.
            attacks: Pairs of epsilon and attack, epsilon rising.
        """
        outcomes = []
        for epsilon, attack in attacks:
            label = f"{name} at {bounds.spelled(epsilon)}"
            key = f"sweep {epsilon!r} {name}"
            result = self._one(label, key, attack, self.correct, shown=False)
            outcomes.append(result.outcome)
        return results.Sweep(
            name, tuple(epsilon for epsilon, _ in attacks), np.stack(outcomes)
        )

    def corrupted(self, name, images, labels):
        """Which corrupted images are classified correctly, bool `[n]`.

        Args:
            name: Of the corruption.
            images, labels: As of the class.
        """

        def work():
            return {"correct": self._predict(images) == labels}

        observe = self._shown.opened(name, len(labels), len(labels))
        key = f"corruption {name} {archives.digest([images, labels])}"
        correct = self._kept(key, work)["correct"]
        observe(len(labels), int((~correct).sum()), last=True)
        return correct

    def finish(self):
        """Writes the last of the adversarial images, beside earlier ones."""
        if self._writer:
            self._writer.finish()

    def close(self):
        """Puts the adversarial images, if any, where they belong."""
        if self._writer:
            self._writer.close()

    def _saved(self, result):
        """The result of an attack, whose images are written."""
        if self._writer:
            self._writer.end(result)
            self._writer.begin()
        return result

    def _one(
        self,
        name,
        key,
        attack,
        standing,
        run=None,
        access=None,
        shown=True,
        begins=None,
    ):
        """One attack on the examples that stand.

        Args:
            name: For the user.
            key: Tells the attack from others that are kept.
            attack: An `Attack`.
            standing: bool `[n]`.
            run: What runs it, as `Engine.run` does; default: that.
            access: As in `Result`; default: what the attack asks for.
            shown: Whether the figures show it.
            begins: Called with the engine and the rows before work that was
                not kept.
        """
        rows = np.flatnonzero(standing)
        observe = self._shown.opened(name, len(rows), len(standing))
        settings = json.dumps(attack.parameters, default=str)
        loop = self._loop(len(rows))
        # On another number of devices the pieces are others.
        size = loop.batch_size
        key = f"{key} {settings} {size} {archives.digest([rows])}"
        writer = self._writer if shown else None
        key += " with images" if writer else ""
        run = run or functools.partial(loop.run, attack)
        kept, done, broken = [], 0, 0
        for number, part in enumerate(
            pieces.split(attack, rows, loop.batch_size)
        ):

            def tell(share, fell, done=done, broken=broken):
                # How far it lies is known once a piece is done.
                fell = fell if attack.norm is None else 0
                observe(done + share, broken + fell)

            def work(part=part, number=number, tell=tell):
                if begins:
                    begins(loop, rows)
                made = self._piece(
                    run, attack, part, number, tell, bool(writer)
                )
                # Before the first piece: alone it would be of no use.
                self._kept(_NATURAL, self._natural_kept)
                return made

            kept.append(self._kept(f"{key} {number}", work))
            if writer:
                made = (kept[-1].pop(key) for key in pieces.MADE)
                writer.put(part, *made)
            done += len(part)
            broken += int(pieces.fallen(attack, kept[-1]).sum())
        self.unscored[name] = sum(int(piece["unscored"]) for piece in kept)
        observe(done, broken, last=True)
        result = pieces.result(name, attack, standing, rows, kept)
        if access is not None:
            result = dataclasses.replace(result, access=access)
        if shown and kept:
            self._show(result, kept)
        return result

    def _natural_kept(self):
        return {
            "predictions": self.predictions,
            "seconds": self._natural_seconds,
        }

    def _once_told(self, name):
        """A function that tells how long an ensemble takes, when first called.

        It takes the attacks that are left, an engine, and the rows that stand.
        """
        told = not self._shown.watched

        def tell(attacks, loop, rows):
            nonlocal told
            if not told:
                told = True
                some = rows[: loop.share]
                batch = (
                    self._images[some],
                    self._labels[some],
                    self._seeds[some],
                )
                self._shown.say(
                    estimate.sentence(name, attacks, loop, len(rows), *batch)
                )

        return tell

    def _predict(self, images):
        with errors.batch_that_fits(self._batch_size):
            return self._loop(len(images)).predict(images)

    def _loop(self, count):
        """An engine whose batches so many examples fill evenly."""
        batches = -(-count // self._batch_size)
        # As many for each of several devices.
        batches += -batches % max(1, len(self._devices))
        width = -(-count // max(1, batches)) or self._batch_size
        if width not in self._loops:
            # Python's own functions are not called from two threads.
            cores = 1 if self._subject.in_python else None
            self._loops[width] = engine.Engine(
                self._subject.classify, width, cores, self._devices
            )
        return self._loops[width]

    def _piece(self, run, attack, rows, number, tell, whole):
        # CleverHans draws from TensorFlow's global generator.
        tf.random.set_seed(self._seed + number)
        started = time.perf_counter()
        images, labels = self._images[rows], self._labels[rows]
        with errors.batch_that_fits(self._batch_size):
            crafted = run(images, labels, self._seeds[rows], tell)
        seconds = time.perf_counter() - started
        kept = pieces.arrays(attack, crafted, rows, images, labels, whole=whole)
        return kept | {"seconds": seconds}

    def _show(self, result, kept):
        """Keeps what the figures show of an attack."""
        if "losses" in kept[0]:
            traced = sum(int(piece["traced"]) for piece in kept)
            if traced:
                losses = sum(piece["losses"] for piece in kept) / traced
                self.traces.append(results.Trace(result.name, losses, traced))
        best = self.samples
        if result.norm is None and (
            best is None or result.accuracy < best.accuracy
        ):
            self.samples = self._samples(result, kept)

    def _samples(self, result, kept):
        rows, images, broken, predictions = (
            np.concatenate([piece[f"sample_{key}"] for piece in kept])
            for key in ("rows", "images", "broken", "predictions")
        )
        return results.Samples.choose(
            result,
            self._images[rows],
            self._labels[rows],
            engine.Crafted(images, predictions, broken, None),
            self._subject.classify,
        )
