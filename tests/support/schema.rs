//! Whether a line of the audit log is of the shipped schema.

use std::sync::OnceLock;

use replyguard::audit::record::SCHEMA;
use serde_json::Value;

/// Fails unless the line is one record of the schema that is shipped.
pub fn assert_valid(line: &str) {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    let schema = || {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    };
    let value: Value = serde_json::from_str(line).unwrap_or_else(|f| panic!("{f}: {line}"));
    let faults: Vec<String> = VALIDATOR
        .get_or_init(schema)
        .iter_errors(&value)
        .map(|fault| format!("{}: {fault}", fault.instance_path))
        .collect();
    assert!(faults.is_empty(), "{line}\n{}", faults.join("\n"));
}
