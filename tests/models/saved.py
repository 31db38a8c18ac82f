"""Folders of saved weights, and how to spoil them."""

import hashlib
import json

from safetensors.torch import save_file

TABLE = ((1, 4), (2, 6))


CARD = {"classes": ["background", "cat", "Größe"], "licenses": ["research use"]}


def rewrite(folder, change=None, tensors=None):
    """Change the card, or the tensors with a card that agrees with them."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    if tensors is not None:
        if isinstance(tensors, bytes):
            (folder / "model.safetensors").write_bytes(tensors)
        else:
            save_file(tensors, folder / "model.safetensors")
        data = (folder / "model.safetensors").read_bytes()
        card["sha256"] = hashlib.sha256(data).hexdigest()
    if change is not None:
        change(card)
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder
