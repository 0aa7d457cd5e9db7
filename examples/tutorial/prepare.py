"""Train the network of my_model.py, and write weights.safetensors and a folder of test images.

You do not need this file if you have weights and images of your own.
"""

from pathlib import Path

import torch
from my_model import build
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional as F

EPOCHS = 6
TRAINED_ON = 1500  # of 1,797 images; the others are for the audit

# enlarge the scans of 8 x 8 pixels
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
x = F.interpolate(x, (32, 32), mode="bilinear").mul(255).round() / 255
y = torch.tensor(digits.target)

# train
torch.manual_seed(0)
network = build()
optimizer = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(EPOCHS):
    for rows in torch.randperm(TRAINED_ON).split(64):
        loss = F.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
network.eval()
save_file(network.state_dict(), "weights.safetensors")

# write the test images, one folder for each class
for i in range(TRAINED_ON, len(x)):
    folder = Path("images", str(y[i].item()))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((x[i, 0] * 255).byte().numpy()).save(folder / f"{i}.png")
right = network(x[TRAINED_ON:]).argmax(1) == y[TRAINED_ON:]
print("right on", int(right.sum()), "of", len(right), "test images")
