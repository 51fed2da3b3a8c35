"""doccano's form: one text per line, with entities by characters and relations by the ids of entities."""

from corpora.offsets import Document, read_documents
from support.errors import InputError, excerpt, explain_errors, keys_of

LINE_FORM = (
    '{"text", "entities": [{"id", "label", "start_offset", "end_offset"}, ...], '
    '"relations": [{"from_id", "to_id", "type"}, ...]}, or {"text", "label": [[start, end, type], ...]}'
)


def records_of(items: list[tuple]) -> list[dict]:
    """The records of texts, given as (number, item, place). A line of a text is a sentence."""
    return read_documents(read_item, items)


def read_item(number: int, item, where: str) -> Document:
    """A text and its annotations."""
    with explain_errors(where, LINE_FORM):
        if not isinstance(item["text"], str):
            raise InputError(f"text is {excerpt(item['text'])}")
        if not {"entities", "label", "labels"} & set(item):
            raise InputError(f"it has {keys_of(item)}")
        for name in ("entities", "relations", "label", "labels"):
            if type(item.get(name, [])) is not list:
                raise InputError(f"{name} is {excerpt(item[name])}")
        name = number if item.get("id") is None else item["id"]
        document = Document(str(name), item["text"], where)
        for k, (start, end, kind) in enumerate(item.get("label", item.get("labels", []))):
            document.entities[f"label[{k}]"] = (kind, start, end)
        for k, entity in enumerate(item.get("entities", [])):
            name, span = f"entity {entity.get('id', k)}", (entity["start_offset"], entity["end_offset"])
            if name in document.entities:
                raise InputError(f"{name} is there twice")
            document.entities[name] = (entity["label"], *span)
        for k, relation in enumerate(item.get("relations", [])):
            ends = [f"entity {relation[end]}" for end in ("from_id", "to_id")]
            document.relations[f"relations[{k}]"] = (relation["type"], *ends)
    return document
