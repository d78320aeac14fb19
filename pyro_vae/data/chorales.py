"""Bach's chorales as piano rolls, in quarter notes."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

LOWEST = 21
"""The MIDI number of the first key of a piano."""
KEYS = 88


class Rolls(NamedTuple):
    """Sequences of chords, as the arguments (x, lengths) of a model."""

    x: Tensor
    """1 where a key is pressed, (N, T, 88), else 0; the steps after the end are zeros."""
    lengths: Tensor
    """The number of steps of each sequence, (N,)."""


def load_chorales(root: Path | str = "data") -> tuple[Rolls, Rolls, Rolls]:
    """Return the 229, 76 and 77 chorales for training, validation and testing (the usual split).

    The file ``jsb/jsb-chorales-quarter.json`` holds the MIDI numbers of each chord.

    Source: Boulanger-Lewandowski, Bengio & Vincent, *Modeling Temporal Dependencies in
    High-Dimensional Sequences*, 2012.

    Raises ``FileNotFoundError`` where the file is absent.
    """
    path = Path(root) / "jsb" / "jsb-chorales-quarter.json"
    if not path.is_file():
        raise FileNotFoundError(f"expected chorales in {path}, got no such file")
    songs = json.loads(path.read_text())
    train, validation, test = (rolls(songs[part]) for part in ("train", "valid", "test"))
    return train, validation, test


def rolls(songs: list[list[list[int]]]) -> Rolls:
    """Return piano rolls of sequences of chords; a chord is a list of MIDI numbers, 21 to 108.

    Raises ``ValueError`` for other numbers, and for a sequence without steps.

    >>> x, lengths = rolls([[[60, 64], []], [[21]]])
    >>> x.shape, lengths, x[0, 0].nonzero().flatten()
    (torch.Size([2, 2, 88]), tensor([2, 1]), tensor([39, 43]))
    """
    lengths = torch.tensor([len(song) for song in songs])
    if not songs or lengths.min() == 0:
        raise ValueError("expected sequences of at least one step, got one without, or none")
    x = torch.zeros(len(songs), int(lengths.max()), KEYS)
    for row, song in zip(x, songs, strict=True):
        for step, chord in zip(row, song, strict=False):
            keys = torch.tensor(chord, dtype=torch.long) - LOWEST
            if ((keys < 0) | (keys >= KEYS)).any():
                raise ValueError(
                    f"expected MIDI numbers of {LOWEST} to {LOWEST + KEYS - 1}, got {chord}"
                )
            step[keys] = 1
    return Rolls(x, lengths)


class Buckets:
    """Buckets of ``size`` sequences of similar lengths, each as long as its longest sequence.

    For :func:`pyro_vae.fit` with ``batch_size=1`` each bucket is one datum. So no time is spent on
    steps after the end of all sequences of a batch.

    >>> buckets = Buckets(rolls([[[60]] * 5, [[62]] * 2, [[64]] * 3, [[65]] * 9]), size=2)
    >>> [x.shape[1] for x, _ in (buckets.batch(torch.tensor([i])) for i in range(len(buckets)))]
    [3, 9]
    """

    def __init__(self, sequences: Rolls, size: int) -> None:
        self.sequences = sequences
        self.rows = sequences.lengths.argsort(stable=True).split(size)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor) -> Rolls:
        """Return the arguments of model and guide for some buckets."""
        rows = torch.cat([self.rows[i] for i in indices.tolist()])
        lengths = self.sequences.lengths[rows]
        return Rolls(self.sequences.x[rows, : int(lengths.max())], lengths)


def save_midi(path: Path | str, roll: Tensor, *, tempo: int = 80) -> None:
    """Write a piano roll (T, 88) of quarter notes as a MIDI file; repeated notes are joined.

    Raises ``ImportError`` where mido is not installed.
    """
    import mido

    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    file = mido.MidiFile(type=0, tracks=[track])
    silence = torch.zeros(1, KEYS)
    changes = torch.cat([silence, roll.cpu(), silence]).diff(dim=0)
    waited = 0
    for change in changes:
        for key in change.nonzero().flatten().tolist():
            kind = "note_on" if change[key] > 0 else "note_off"
            track.append(mido.Message(kind, note=key + LOWEST, velocity=64, time=waited))
            waited = 0
        waited += file.ticks_per_beat
    file.save(str(path))


def scales(n: int = 60, seed: int = 0) -> Rolls:
    """Return n major scales in thirds, up and down from a random key; they need no file.

    They have 8 to 16 steps.

    >>> scales(3).x.shape[0]
    3
    """
    generator = torch.Generator().manual_seed(seed)
    degrees = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)
    songs = []
    for _ in range(n):
        start = 48 + int(torch.randint(24, (), generator=generator))
        length = int(torch.randint(8, 17, (), generator=generator))
        turns = [7 - abs(7 - t % 14) for t in range(length)]
        songs.append([[start + degrees[t], start + degrees[t + 2]] for t in turns])
    return rolls(songs)
