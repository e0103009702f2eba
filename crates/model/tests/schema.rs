//! Holds that the JSON Schema and the reader know the same keys and the same words, in every place of the spec.

use std::collections::BTreeSet;

use isles_model::spec;
use serde_json::{Value, json};

/// One step into a spec: a key of a map, or an item of a list.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Item,
}

/// A spec, written as JSON (which is YAML), that has `value` at a path and nothing else.
fn spec_with(path: &[Step], value: Value) -> String {
    let whole = path.iter().rev().fold(value, |inner, step| match step {
        Step::Key(key) => json!({ key.as_str(): inner }),
        Step::Item => json!([inner]),
    });
    whole.to_string()
}

/// The help of the one finding of a kind in a text.
fn help(text: &str, code: spec::Code) -> String {
    let errors = spec::load("isles.yaml", text).expect_err("it has a mistake");
    let mends: Vec<_> = errors.iter().filter(|f| f.code() == code).map(|f| f.mend().to_owned()).collect();
    assert_eq!(mends.len(), 1, "{text}: {:?}", errors.iter().collect::<Vec<_>>());
    mends.into_iter().next().unwrap_or_default()
}

/// Visits a schema and all that is in it, with the path that leads there.
fn visit(schema: &Value, path: &[Step], see: &mut impl FnMut(&Value, &[Step])) {
    see(schema, path);
    let to = |step| [path, &[step]].concat();
    if let Some(properties) = schema["properties"].as_object() {
        for (key, inner) in properties {
            visit(inner, &to(Step::Key(key.clone())), see);
        }
    }
    if schema["additionalProperties"].is_object() {
        visit(&schema["additionalProperties"], &to(Step::Key("some-name".to_owned())), see);
    }
    if schema["items"].is_object() {
        visit(&schema["items"], &to(Step::Item), see);
    }
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        visit(form, path, see);
    }
}

#[test]
fn the_reader_knows_the_keys_of_the_schema_and_no_others() {
    let mut maps = 0;
    visit(&spec::schema(), &[], &mut |schema, path| {
        let Some(properties) = schema["properties"].as_object() else { return };
        maps += 1;
        let help = help(&spec_with(path, json!({"zzzzzz": 1})), spec::Code::UnknownKey);
        let known = help.trim_start_matches("Keys here: ").trim_end_matches('.');
        let known: BTreeSet<&str> = known.split(", ").collect();
        assert_eq!(known, properties.keys().map(String::as_str).collect(), "at {path:?}");
        assert_eq!(schema["additionalProperties"], false, "at {path:?}");
    });
    assert!(maps >= 11, "only {maps} maps were visited");
}

#[test]
fn the_reader_takes_the_words_of_the_schema_and_no_others() {
    let mut choices = 0;
    visit(&spec::schema(), &[], &mut |schema, path| {
        let Some(words) = schema["enum"].as_array() else { return };
        choices += 1;
        let help = help(&spec_with(path, json!("zzzzzz")), spec::Code::BadChoice);
        let known: BTreeSet<&str> = help.split('`').skip(1).step_by(2).collect();
        assert_eq!(known, words.iter().filter_map(Value::as_str).collect(), "at {path:?}");
    });
    assert!(choices >= 6, "only {choices} choices were visited");
}

#[test]
fn the_reader_misses_what_the_schema_requires() {
    visit(&spec::schema(), &[], &mut |schema, path| {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if required.is_empty() {
            return;
        }
        let errors = spec::load("isles.yaml", &spec_with(path, json!({}))).expect_err("keys are missing");
        for key in required {
            let ending = format!("has no `{key}`");
            assert!(errors.iter().any(|f| f.message().ends_with(&ending)), "{key} at {path:?}");
        }
    });
}
