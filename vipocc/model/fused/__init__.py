"""The fast path of rendering on CUDA: Triton kernels for the density of points and for compositing along rays.

`density` is one head's, BTS's; `compositing` serves every head. Their plain twins are `MLPHead.reference` and
`vipocc.model.renderer.render_rays`. Triton's interpreter runs the kernels on the CPU (TRITON_INTERPRET=1), which is how
tests compare them with their twins where there is no GPU.
"""
