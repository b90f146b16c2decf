"""The released networks in plain torch modules, written from the prose of published_system.md 3.1 to 3.8.

They share no code with vipocc: module names give the keys of a released checkpoint, methods its arithmetic (images in
[-1, 1], align_corners conventions, refinement). Dead parts are there, as in the released code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


class _Padded(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        return result


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _Padded(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.conv(x))


class _Encoder(nn.Module):
    """`encoder`: torchvision's ResNet, classifier included."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder: Any = getattr(torchvision.models, name)(weights=None)
        last = self.encoder.fc.in_features
        self.levels = [64, *([64, 128, 256, 512] if last == 512 else [256, 512, 1024, 2048])]

    def forward(self, image: Tensor) -> list[Tensor]:
        net = self.encoder
        x = ((image * 0.5 + 0.5) - 0.45) / 0.225
        levels = [net.relu(net.bn1(net.conv1(x)))]
        x = net.layer1(net.maxpool(levels[0]))
        levels.append(x)
        for layer in (net.layer2, net.layer3, net.layer4):
            x = layer(x)
            levels.append(x)
        return levels


class _Decoder(nn.Module):
    """`decoder.0` to `decoder.9`: stages 4 to 0, two convolutions each; `decoder.10` to `13`: outputs s0 to s3."""

    def __init__(self, levels: list[int], widths: list[int], outputs: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        inputs = levels[-1]
        for i in (4, 3, 2, 1, 0):
            skip = levels[i - 1] if i > 0 else 0
            parts += [_Block(inputs, widths[i]), _Block(widths[i] + skip, widths[i])]
            inputs = widths[i]
        parts += [_Padded(widths[scale], outputs) for scale in range(4)]
        self.decoder = nn.ModuleList(parts)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for step, i in enumerate((4, 3, 2, 1, 0)):
            x = F.interpolate(self.decoder[2 * step](x), scale_factor=2, mode="nearest")
            if i > 0:
                skip = levels[i - 1]
                x = torch.cat((x[:, :, : skip.shape[2], : skip.shape[3]], skip), 1)
            x = self.decoder[2 * step + 1](x)
        result: Tensor = self.decoder[10](x)
        return result


class _Backbone(nn.Module):
    def __init__(self, second: bool) -> None:
        super().__init__()
        self.encoder = _Encoder("resnet50")
        raised = [max(width, 64) for width in (32, 32, 64, 128, 256)]
        self.decoder = _Decoder(self.encoder.levels, raised, 64)
        if second:
            self.depth_decoder = _Decoder(self.encoder.levels, [32, 32, 64, 128, 256], 1)


class _Code(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        octaves = 1.5 * 2.0 ** torch.arange(6)
        self.register_buffer("_freqs", octaves.repeat_interleave(2).reshape(1, 12, 1))
        self.register_buffer("_phases", torch.tensor([0.0, math.pi / 2] * 6).reshape(1, 12, 1))

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.sin(x[:, None, :] * self._freqs + self._phases)
        return torch.cat((x, waves.flatten(1)), 1)


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin_in = nn.Linear(103, 64)
        self.lin_out = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.lin_out(F.relu(self.lin_in(x)))
        return result


class _Net(nn.Module):
    def __init__(self, second: bool) -> None:
        super().__init__()
        self.encoder = _Backbone(second)
        self.code_xyz = _Code()
        self.mlp_coarse = _Mlp()

    def features(self, image: Tensor) -> Tensor:
        """image [B, 3, H, W] in [-1, 1] -> [B, 64, H, W]."""
        result: Tensor = self.encoder.decoder(self.encoder.encoder(image))
        return result

    def sigma(self, features: Tensor, intrinsics: Tensor, points: Tensor) -> Tensor:
        """Densities [B, N] at points [B, N, 3] in the camera's frame, with normalised intrinsics [B, 3, 3]."""
        projected = points @ intrinsics.mT
        z = projected[..., 2]
        uv = projected[..., :2] / z.clamp_min(1e-3)[..., None]
        code = ((1 / z.clamp_min(1e-3) - 1 / 80) / (1 / 3 - 1 / 80)) * 2 - 1
        encoded = self.code_xyz(torch.cat((uv, code[..., None]), -1).flatten(0, 1))
        sampled = F.grid_sample(
            features, uv[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
        ).squeeze(-1)
        inputs = torch.cat((sampled.mT.flatten(0, 1), encoded), 1)
        return F.softplus(self.mlp_coarse(inputs)).reshape(points.shape[:2])


class _Counters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("iter_idx", torch.tensor(0))
        self.register_buffer("last_sched", torch.tensor(0))


class _Renderer(nn.Module):
    def __init__(self, second: bool) -> None:
        super().__init__()
        self.net = _Net(second)
        self.renderer = _Counters()


class _Rid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder("resnet18")
        self.decoder = _Decoder(self.encoder.levels, [16, 32, 64, 128, 256], 1)

    def refined(self, image: Tensor, prior: Tensor) -> Tensor:
        """image [B, 3, H, W] in [-1, 1] and pseudo-depth [B, 1, H, W] -> depth."""
        residual = self.decoder(self.encoder(image))
        return 1 / (1 / prior.clamp(0.1, 80) + residual / 10 + 1e-8)


class Twin(nn.Module):
    """The released ViPOcc, or with `bts=True` BTS, with random weights whose outputs vary; in evaluation mode."""

    def __init__(self, *, bts: bool = False, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.renderer = _Renderer(second=not bts)
            if not bts:
                self.res_inv_depth = _Rid()
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
                    nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
                    nn.init.uniform_(module.weight, 0.3, 0.8)
                    nn.init.uniform_(module.bias, -0.1, 0.1)
                    module.num_batches_tracked.fill_(1000)  # type: ignore[union-attr]
        self.eval()

    @property
    def net(self) -> _Net:
        return self.renderer.net
