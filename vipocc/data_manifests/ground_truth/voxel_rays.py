"""Which cells of a grid a camera sees: the cells that a straight line to their centre passes, one after another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def visible_cells(
    occupied: NDArray[np.bool_], eye: ArrayLike, targets: NDArray[np.int64], device: torch.device | str = "cpu"
) -> NDArray[np.bool_]:
    """Return which cells are seen: no occupied one lies between the eye and their centre. A seen surface is visible.

    The line is followed exactly, from face to face; where it meets an edge, x goes first, then y. The eye's own cell
    hides nothing, and neither does what lies outside the grid.

    Args:
        occupied: bool [X, Y, Z].
        eye: [3] in cells from the grid's lowest corner; it may lie outside.
        targets: [N, 3] indices of the cells.
        device: where it is computed, in float64.
    """
    shape = torch.tensor(occupied.shape, device=device)
    solid = torch.from_numpy(np.ascontiguousarray(occupied)).to(device).reshape(-1)
    start = torch.as_tensor(np.asarray(eye, np.float64), device=device)
    goal = torch.from_numpy(np.ascontiguousarray(targets, np.int64)).to(device)
    visible = torch.ones(len(goal), dtype=torch.bool, device=device)
    towards = goal.double() + 0.5 - start
    step = torch.sign(towards).long()
    cell = torch.floor(start).long().expand(len(goal), 3).clone()
    left = (goal - cell).abs().sum(1)
    # How far along the line, 1 being its end, the next face and the distance between faces are on each axis.
    far = torch.full_like(towards, torch.inf)
    between = torch.where(towards != 0, 1 / towards.abs(), far)
    following = torch.where(towards != 0, (cell + (step > 0) - start) / towards, far)
    alive = torch.arange(len(goal), device=device)
    while len(alive):
        going = left > 1
        if not bool(going.all()):
            alive, cell, step, left = alive[going], cell[going], step[going], left[going]
            between, following = between[going], following[going]
            continue
        axis = following.argmin(1, keepdim=True)
        cell.scatter_add_(1, axis, step.gather(1, axis))
        following.scatter_add_(1, axis, between.gather(1, axis))
        left -= 1
        inside = ((cell >= 0) & (cell < shape)).all(1)
        flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
        hit = inside & solid[torch.where(inside, flat, 0)]
        visible[alive[hit]] = False
        left[hit] = 0
    return np.asarray(visible.cpu().numpy())


def visible_cells_reference(
    occupied: NDArray[np.bool_], eye: ArrayLike, targets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The plain twin of `visible_cells`, cell by cell."""
    start = np.asarray(eye, np.float64)
    visible = np.ones(len(targets), np.bool_)
    for at, target in enumerate(targets):
        towards = target + 0.5 - start
        cell = np.floor(start).astype(np.int64)
        following = [np.inf if d == 0 else (c + (d > 0) - s) / d for c, d, s in zip(cell, towards, start, strict=True)]
        while True:
            axis = int(np.argmin(following))
            if (cell == target).all():
                break
            cell[axis] += int(np.sign(towards[axis]))
            following[axis] += 1 / abs(towards[axis])
            if (cell == target).all():
                break
            if (cell >= 0).all() and (cell < occupied.shape).all() and occupied[tuple(cell)]:
                visible[at] = False
                break
    return visible
