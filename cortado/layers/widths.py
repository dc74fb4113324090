"""Widths: let a layer's own attributes (in_channels, num_features ...) say what the shapes of its tensors are."""

from torch import Size, nn

from cortado.forms.hold import form_of


def shape_of(layer: nn.Module, name: str) -> Size | None:
    """The shape of a parameter, held in a form or not; None when the layer has none."""
    form = form_of(layer, name)
    if form is not None:
        return form.shape
    value = layer._parameters.get(name)
    return None if value is None else value.shape


def match_widths(layer: nn.Module) -> None:
    """Set the attributes of a linear, convolution, norm or embedding layer from its tensors; others stay."""
    shape = shape_of(layer, "weight")
    if shape is None:
        return
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = shape
    elif isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        layer.in_channels, layer.out_channels = shape[0], shape[1] * layer.groups
    elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        if layer.groups > 1 and layer.groups == layer.out_channels:
            layer.groups = shape[0]
        layer.out_channels, layer.in_channels = shape[0], shape[1] * layer.groups
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d)):
        layer.num_features = shape[0]
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = shape
