"""The small MNIST CNN of the textbooks, in Keras and as everyone writes it; `sizewise` brings it in sizes.

sizewise run mnist --family keras:examples.keras_mnist:model

At width 32 it is the model below, of 693,962 parameters; at width 16 it has half the filters and units.
"""

import keras
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D

model = keras.Sequential(
    [
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
