"""Models, their registry and their cost.

`registry` builds a model by name, `vit` and `haiku_nets` hold the networks,
`variant` what vision transformers differ in from family to family, `cost` counts
multiply-accumulates and parameters. Everything else of classact may import this
folder; it imports nothing else of classact but `user_code`.
"""
