//! Authentication-Results, read in full (RFC 8601 §2.2).
//!
//! Takes: the value of a header field, folded or not, as bytes. Gives: `AuthResults`.
//! Errors: `AuthResultsFault`, and nothing of the field is believed then.

/// One Authentication-Results field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthResults {
    /// Who says it; lower case, quotes removed.
    pub authserv_id: String,
    /// The version behind the authserv-id; `None` when not said, which means 1.
    pub version: Option<u32>,
    /// What it says, in order; empty for `none`.
    pub results: Vec<MethodResult>,
}

/// One `method=result` with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodResult {
    /// The method, lower case: `spf`, `dkim`, `dmarc`, `arc`, `iprev`, …
    pub method: String,
    /// The method's version behind a slash; `None` when not said.
    pub version: Option<u32>,
    /// The result word, lower case.
    pub result: String,
    /// `reason=`, unquoted.
    pub reason: Option<String>,
    /// `ptype.property=value`, in order.
    pub properties: Vec<Property>,
}

/// One `ptype.property=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// `smtp`, `header`, `body`, `policy`, …; lower case.
    pub ptype: String,
    /// `mailfrom`, `from`, `d`, …; lower case.
    pub name: String,
    /// The value, unquoted, letter case kept.
    pub value: String,
}

/// Why a field is no Authentication-Results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct AuthResultsFault {
    /// Where in the value.
    pub at: usize,
    /// What was expected.
    pub what: &'static str,
}

impl AuthResults {
    /// Reads the value of an Authentication-Results field, folded or not.
    pub fn parse(_value: &[u8]) -> Result<AuthResults, AuthResultsFault> {
        Err(AuthResultsFault { at: 0, what: "not written yet" })
    }
}

impl MethodResult {
    /// The value of the first such property; `ptype` and `name` in lower case.
    pub fn property(&self, ptype: &str, name: &str) -> Option<&str> {
        let wanted = |property: &&Property| property.ptype == ptype && property.name == name;
        self.properties.iter().find(wanted).map(|property| property.value.as_str())
    }
}
