"""What a defense keeps of each training example, by its row."""

import keras
import tensorflow as tf

from mart_tf.training import reduction


class Memory(keras.layers.Layer):
    """Tables of one float per training example, the same on every replica.

    They are weights, saved and restored with the model that holds them.

    Args:
        first_values: The first value of each table, by name; no tables if
            there are none.
        rows: Length of the tables; default: to be told by `ensure`.
    """

    def __init__(self, first_values, rows=None):
        super().__init__(name="memory")
        self.rows = None
        self._first_values = dict(first_values)
        self._tables = {}
        if rows is not None:
            self._create(int(rows))

    def ensure(self, greatest_row):
        """Makes the tables if they are not there yet.

        Args:
            greatest_row: The greatest row of the training data, or None.

        Raises:
            ValueError: If there is no row to go by, or the tables are shorter.
        """
        if not self._first_values:
            return
        if self.rows is None:
            if greatest_row is None:
                raise self._missing()
            self._create(greatest_row + 1)
        elif greatest_row is not None and greatest_row >= self.rows:
            raise ValueError(
                f"The training data has a row {greatest_row}, and the defense "
                f"keeps something of {self.rows} rows; expected rows below "
                f"{self.rows}, or a new AdversarialClassifier for other data."
            )

    def check_rows_known(self):
        """Refuses to be filled from a file before its length is known."""
        if self._first_values and self.rows is None:
            raise ValueError(
                "The defense keeps something of each training example, and a "
                "file of weights fills only tables that are there; give "
                "AdversarialClassifier(rows=...) as many rows as were trained "
                "on, or save the whole model: "
                'save("model.keras"), keras.saving.load_model.'
            )

    def recall(self, examples):
        """What is kept of some examples, float32 `[batch]` by name."""
        if self._first_values and not self._tables:
            raise self._missing()
        if self._tables:
            # On a GPU a row beyond the table would be read as 0.
            tf.debugging.assert_less(
                examples,
                tf.constant(self.rows, tf.int64),
                f"A row lies beyond the {self.rows} rows of the training data.",
            )
        return {
            name: tf.gather(table.value, examples)
            for name, table in self._tables.items()
        }

    def keep(self, examples, values):
        """Keeps new values `[batch]` by name, of all replicas' examples."""
        for name, own in values.items():
            table = self._tables[name]
            table.assign(reduction.written(table.value, examples, own))

    def _create(self, rows):
        self.rows = rows
        for name, value in self._first_values.items():
            self._tables[name] = self.add_weight(
                name=name,
                shape=[rows],
                dtype="float32",
                trainable=False,
                initializer=keras.initializers.Constant(value),
                aggregation="only_first_replica",
            )

    def _missing(self):
        return ValueError(
            "The defense keeps something of each training example, and this "
            "input does not tell how many there are; give "
            "AdversarialClassifier(rows=...), one more than the greatest row."
        )
