"""Image captioning for Keras 3 and TensorFlow.

Train a captioner, caption a folder of photos, export one SavedModel.
"""
