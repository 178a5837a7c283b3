"""The command-line tools; installed as `bmpq_tf.tools`, runnable as scripts from here."""
