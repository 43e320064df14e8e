//! YAML of CloudFormation as JSON, its short forms (`!Ref`) in their long ones.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

/// The only document of the text.
pub fn parse(text: &str) -> Value {
    let documents = Yaml::load_from_str(text).unwrap();
    assert_eq!(documents.len(), 1);
    value(&documents[0])
}

fn value(node: &Yaml) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(boolean)) => json!(boolean),
        Yaml::Value(Scalar::Integer(integer)) => json!(integer),
        Yaml::Value(Scalar::String(string)) => json!(string),
        Yaml::Sequence(items) => items.iter().map(value).collect(),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, entry) in entries {
                let key = key.as_str().unwrap_or_else(|| panic!("{key:?} is no name")).to_owned();
                assert!(map.insert(key.clone(), value(entry)).is_none(), "{key} is there twice");
            }
            Value::Object(map)
        }
        Yaml::Tagged(tag, inner) => call(&tag.suffix, value(inner)),
        other => panic!("{other:?} has no place in a template"),
    }
}

fn call(function: &str, argument: Value) -> Value {
    match (function, argument) {
        ("Ref" | "Condition", argument) => json!({ function: argument }),
        ("GetAtt", Value::String(path)) => {
            let (resource, attribute) = path.split_once('.').unwrap();
            json!({ "Fn::GetAtt": [resource, attribute] })
        }
        (function, argument) => json!({ format!("Fn::{function}"): argument }),
    }
}
