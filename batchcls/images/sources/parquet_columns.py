"""The columns of a Parquet file in which images and their names are, as the writers of such files call them."""

import pyarrow as pa
import pyarrow.parquet as pq

_BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())
_IMAGES = (
    *("image", "img", "bytes", "image_bytes", "img_bytes", "jpg", "jpeg", "png", "webp", "tif", "tiff"),
    *("picture", "photo", "content", "data", "image_data"),
)
"""Usual names of a column of images, the likeliest first."""
_NAMES = ("path", "file_name", "filename", "file", "__key__", "key", "name", "image_id", "id", "uuid")
"""Usual names of a column that names images, the likeliest first."""


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that may hold images: bytes, or as Hugging Face writes them, with a field ``bytes`` of bytes.

    Beside a column ``path``, which may name images elsewhere, only those count that are called like one of images.
    """
    columns = [field for field in schema if _path_of_bytes(field)]
    if any(field.name == "path" and _is_name(field.type) for field in schema):
        columns = [field for field in columns if pa.types.is_struct(field.type) or field.name.lower() in _IMAGES]
    return [field.name for field in columns]


def has_images(schema: pa.Schema) -> bool:
    """Whether a Parquet file of that schema holds images, or at least bytes that may be images."""
    return bool(image_columns(schema))


def image_column(schema: pa.Schema) -> str:
    """The column of images: the one with the likeliest name, or the only one of bytes.

    Raises:
        ValueError: If there is none, or there are several of which none is called like one of images.
    """
    columns = image_columns(schema)
    usual = [name for wanted in _IMAGES for name in columns if name.lower() == wanted]
    if not usual and len(columns) != 1:
        found = f"several columns of bytes: {', '.join(map(repr, columns))}" if columns else "no column of bytes"
        raise ValueError(f"it has {found}; name the column of images 'image'")
    return (usual or columns)[0]


def name_column(schema: pa.Schema) -> str | None:
    """Dotted path of the column that names the images; None if there is none."""
    image = schema.field(image_column(schema))
    if pa.types.is_struct(image.type):
        for field in image.type:
            if field.name == "path" and _is_name(field.type):
                return f"{image.name}.path"
    names = [field.name for field in schema if _is_name(field.type)]
    usual = [name for wanted in _NAMES for name in names if name.lower() == wanted]
    return usual[0] if usual else None


def image_leaf(file: pq.ParquetFile) -> tuple[int, int]:
    """Position of the column of images among the columns of the file itself, and the definition level of a value.

    Raises:
        ValueError: If there is no such column.
    """
    schema = file.schema_arrow
    path = _path_of_bytes(schema.field(image_column(schema)))
    for position in range(len(file.schema)):
        leaf = file.schema.column(position)
        if leaf.path == path and leaf.physical_type == "BYTE_ARRAY" and not leaf.max_repetition_level:
            return position, leaf.max_definition_level
    raise ValueError("its column of images is in a form that is not read")


def _path_of_bytes(field: pa.Field) -> str | None:
    """Dotted path of the bytes of images in a column; None if it holds none."""
    if field.type in _BINARY:
        return str(field.name)
    if pa.types.is_struct(field.type):
        for inner in field.type:
            if inner.name == "bytes" and inner.type in _BINARY:
                return f"{field.name}.bytes"
    return None


def _is_name(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view()) or pa.types.is_integer(kind)
