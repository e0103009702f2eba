//! Writes the description of the spec as a JSON Schema, for editors that complete and check `isles.yaml`.

use serde_json::{Map, Value, json};

use super::{
    duration,
    keys::SPEC,
    shape::{Key, KeyKind, Shape},
};

/// A DNS label, as [`crate::RegionName`] reads it.
const LABEL: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const HOST: &str = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+$";

/// The JSON Schema (draft 2020-12) of the spec, drawn from the same description that the reader holds a spec against.
pub fn schema() -> Value {
    let mut schema = of(&SPEC);
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "isles.yaml",
        "description": "One web application in several regions: the spec that Isles rehearses, runs and renders.",
    });
    merge(&mut schema, head);
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Name | Shape::Region => json!({"type": "string", "pattern": LABEL}),
        Shape::Host => json!({"type": "string", "pattern": HOST, "maxLength": 253}),
        Shape::Text => json!({"type": "string", "pattern": r"\S"}),
        Shape::Literal => json!({"type": ["string", "number", "boolean"]}),
        Shape::UrlPath => json!({"type": "string", "pattern": "^/[!-~]*$"}),
        Shape::Endpoint => json!({"type": "string", "pattern": "^https?://[^/?#\\s]+/?$"}),
        Shape::Count { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Duration => {
            json!({"type": "string", "pattern": duration::PATTERN, "examples": ["500ms", "3s", "2m", "1h"]})
        }
        Shape::Choice(words) => json!({"enum": words}),
        Shape::List(item) => json!({"type": "array", "items": of(item)}),
        Shape::Map(kind, value) => {
            let names = match kind {
                KeyKind::Name | KeyKind::Region => LABEL,
                KeyKind::Variable => VARIABLE,
            };
            json!({"type": "object", "propertyNames": {"pattern": names}, "additionalProperties": bare_or(value)})
        }
        Shape::Record(keys) => record(keys),
        Shape::Either(a, b) => json!({"anyOf": [of(a), of(b)]}),
        Shape::Free => json!({}),
    }
}

/// A map's entry; where no key of it is required, it may also be left empty.
fn bare_or(value: &Shape) -> Value {
    match value {
        Shape::Record(keys) if keys.iter().all(|key| !key.required) => {
            let mut record = record(keys);
            merge(&mut record, json!({"type": ["object", "null"]}));
            record
        }
        shape => of(shape),
    }
}

fn record(keys: &[Key]) -> Value {
    let property = |key: &Key| {
        let mut schema = of(&key.shape);
        merge(&mut schema, json!({"description": key.about}));
        (key.name.to_owned(), schema)
    };
    let properties: Map<String, Value> = keys.iter().map(property).collect();
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        merge(&mut schema, json!({"required": required}));
    }
    schema
}

fn merge(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}
