"""Values in words, for the pages: times, ages, sizes, numbers, and the API's schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from engines import printing
from worker import evidence, words


def age(seconds: float) -> str:
    """A duration in two units at most."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def told(sentence: str) -> Markup:
    """A sentence for people; what it has in `backquotes` is shown as code."""
    parts = sentence.split("`")
    if len(parts) % 2 == 0:
        return Markup("{}").format(sentence)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else Markup("{}").format(part)
        for index, part in enumerate(parts)
    )


def moment(at: datetime | None) -> Markup:
    """A time on this server's clock, machine-readable too; a dash where there is none."""
    if at is None:
        return Markup("–")
    local = at.astimezone()
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        local.isoformat(timespec="seconds"), f"{local:%Y-%m-%d %H:%M:%S %Z}", f"{local:%m-%d %H:%M:%S}"
    )


def date(text: str) -> str:
    """A DICOM date (DA, PS3.5 6.2) as people write it; anything else as it is."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def uid(text: str) -> Markup:
    """A UID that may break at its dots."""
    return Markup("<code class=uid>{}</code>").format(Markup(".<wbr>").join(text.split(".")))


def size(count: int) -> str:
    """A file's size."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def number(value: float) -> str:
    """A measurement with four significant digits at least, and no more decimals than they need."""
    magnitude = abs(value)
    decimals = 0 if magnitude >= 1000 else 1 if magnitude >= 100 else 2 if magnitude >= 10 else 3
    return f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", "\u2212")


def plain(value: Any) -> str:
    """An attribute's value; several values are parted by backslashes, as in DICOM."""
    if value is None:
        return "–"
    return "\\".join(map(str, value)) if isinstance(value, list) else str(value)


def colour(rgb: Sequence[int]) -> str:
    """A colour as #rrggbb."""
    return "#" + "".join(f"{part:02x}" for part in rgb)


FILTERS: dict[str, Callable[..., Any]] = {
    "age": age,
    "told": told,
    "moment": moment,
    "date": date,
    "uid": uid,
    "size": size,
    "number": number,
    "unit": printing.unit,
    "purged": words.purged,
    "came_again": words.came_again,
    "besides": words.besides,
    "plain": plain,
    "proof": evidence.in_words,
}


def operation(described: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAPI operation as the reference page shows it."""
    success = described["responses"].get("200", {})
    content = success.get("content", {}).get("application/json", {}).get("schema", {})
    return {
        "summary": described.get("summary", ""),
        "description": described.get("description", ""),
        "parameters": [
            {
                "name": parameter["name"],
                "place": parameter["in"],
                "required": parameter.get("required", False),
                "type": type_of(parameter["schema"]),
                "description": parameter.get("description", ""),
            }
            for parameter in described.get("parameters", [])
        ],
        "answer": type_of(content) if content else "text",
        "errors": {
            code: answer["description"] for code, answer in described["responses"].items() if code != "200"
        },
    }


def models(schemas: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The API's models: their fields and types; an enumeration by its values."""
    return {
        name: {field: type_of(schema) for field, schema in described["properties"].items()}
        if "properties" in described
        else {"one of": type_of(described)}
        for name, described in schemas.items()
    }


def type_of(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words; a model by its name."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(type_of(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {type_of(schema['additionalProperties'])}"
    return {"date-time": "time"}.get(schema.get("format", ""), str(kind))
