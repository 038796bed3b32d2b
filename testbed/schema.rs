//! JSON against the part of JSON Schema that docs/ uses.

use crate::step;
use serde_json::Value;
use std::path::Path;

/// A schema of docs/.
pub struct Schema {
    root: Value,
}

impl Schema {
    /// Reads the file.
    pub fn read(path: impl AsRef<Path>) -> Schema {
        let path = path.as_ref();
        let text = step(path.display(), std::fs::read_to_string(path));
        let root = step(path.display(), serde_json::from_str(&text));
        Schema { root }
    }

    /// What does not fit it, by the path to it. A keyword or a type that is
    /// not known here panics, so that none is passed over.
    pub fn misfits(&self, value: &Value) -> Vec<String> {
        misfits(&self.root, value)
    }

    /// The lines of a report, each of which fits.
    #[track_caller]
    pub fn fitting(&self, text: &str) -> Vec<Value> {
        let read = |line: &str| {
            let line: Value = step(format!("parse {line}"), serde_json::from_str(line));
            let misfits = self.misfits(&line);
            assert!(misfits.is_empty(), "{misfits:#?} in {line}");
            line
        };
        text.lines().map(read).collect()
    }
}

fn misfits(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(schema, schema, value, "", &mut found);
    found
}

fn look(schema: &Value, root: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(keywords) = schema else {
        panic!("{path}: a schema is an object");
    };
    for (keyword, rule) in keywords {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = rule.as_str().and_then(|rule| rule.strip_prefix('#'));
                let target = pointer.and_then(|pointer| root.pointer(pointer));
                let target = target.unwrap_or_else(|| panic!("{path}: {rule} is nowhere"));
                look(target, root, value, path, found);
            }
            "enum" => {
                if !elements(rule).any(|allowed| allowed == value) {
                    found.push(format!("{path}: {value} is not one of {rule}"));
                }
            }
            "type" => {
                let fits = match rule {
                    Value::Array(kinds) => kinds.iter().any(|kind| is_a(value, kind)),
                    kind => is_a(value, kind),
                };
                if !fits {
                    found.push(format!("{path}: {value} is no {rule}"));
                }
            }
            // Says nothing of what is no object: `null`, where the type allows it.
            "required" if !value.is_object() => {}
            "required" => {
                let names = elements(rule).filter_map(Value::as_str);
                let missing = names.filter(|name| value.get(name).is_none());
                found.extend(missing.map(|name| format!("{path}: {name} is missing")));
            }
            "properties" => {
                for (name, schema) in rule.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        look(schema, root, member, &format!("{path}/{name}"), found);
                    }
                }
            }
            "additionalProperties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let path = format!("{path}/{name}");
                    match rule {
                        _ if schema["properties"].get(name).is_some() => {}
                        Value::Bool(false) => found.push(format!("{path} is not known")),
                        schema => look(schema, root, member, &path, found),
                    }
                }
            }
            "prefixItems" => {
                let items = elements(value).zip(elements(rule)).enumerate();
                for (place, (item, rule)) in items {
                    look(rule, root, item, &format!("{path}/{place}"), found);
                }
            }
            // Of those behind the ones that have a rule of their own.
            "items" => {
                let first = elements(&schema["prefixItems"]).count();
                for (place, item) in elements(value).enumerate().skip(first) {
                    let path = format!("{path}/{place}");
                    match rule {
                        Value::Bool(false) => found.push(format!("{path} is one too many")),
                        rule => look(rule, root, item, &path, found),
                    }
                }
            }
            "minItems" => {
                let (least, count) = (rule.as_u64(), elements(value).count() as u64);
                let least = least.unwrap_or_else(|| panic!("{path}: {rule} is no number"));
                if count < least && value.is_array() {
                    found.push(format!("{path}: {count} are too few"));
                }
            }
            other => panic!("{path}: the keyword {other} is not known here"),
        }
    }
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64(),
        Some("null") => value.is_null(),
        _ => panic!("the type {kind} is not known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_different_members_are_looked_at_one_by_one() {
        let row = json!({
            "type": "array",
            "prefixItems": [{ "type": "integer" }, { "enum": ["a", "b"] }],
            "minItems": 2,
            "items": false
        });
        for (value, misfit) in [
            (json!([1, "a"]), None),
            (json!([1, "c"]), Some("/1: \"c\" is not one of")),
            (json!(["1", "a"]), Some("/0: \"1\" is no")),
            (json!([1]), Some(": 1 are too few")),
            (json!([1, "a", 2]), Some("/2 is one too many")),
            (json!({}), Some(": {} is no")),
        ] {
            let found = misfits(&row, &value);
            assert_eq!(found.len(), usize::from(misfit.is_some()), "{found:?}");
            assert!(
                found.iter().all(|it| it.starts_with(misfit.unwrap())),
                "{found:?}"
            );
        }
        let rest = json!({ "prefixItems": [{ "type": "integer" }], "items": { "type": "string" } });
        assert_eq!(misfits(&rest, &json!([1, "a", "b"])), [""; 0]);
        assert_eq!(misfits(&rest, &json!([1, 2])).len(), 1);
    }
}
