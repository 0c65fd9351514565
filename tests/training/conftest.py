import pytest


@pytest.fixture
def events():
    """From a folder with one event file: its scalars by (tag, step)."""
    import tensorflow as tf

    def read(folder):
        (file,) = folder.iterdir()
        found = {}
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "text":
                    found[value.tag, event.step] = tf.make_ndarray(value.tensor).item().decode()
                    continue
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
        return found

    return read
