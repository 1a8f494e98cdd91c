//! The parameters of a call.

use serde_json::{Map, Value};

use crate::Failure;

/// The parameters of one call, by name.
#[derive(Debug)]
pub(crate) struct Arguments(pub Map<String, Value>);

impl Arguments {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// What VDSM says when Python misses an argument.
    fn missing(name: &str) -> Failure {
        match name {
            "vmID" => Failure::internal("VM.__init__() missing 1 required positional argument: 'UUID'"),
            "storagedomainID" => {
                Failure::internal("StorageDomain.__init__() missing 1 required positional argument: 'UUID'")
            }
            _ => Failure::internal(&format!("missing 1 required positional argument: '{name}'")),
        }
    }

    pub fn require(&self, name: &str) -> Result<&Value, Failure> {
        self.get(name).ok_or_else(|| Self::missing(name))
    }

    pub fn text(&self, name: &str) -> Result<String, Failure> {
        let value = self.require(name)?;
        let text = value.as_str().ok_or_else(|| Failure::invalid_parameter(name, &value.to_string()))?;
        Ok(text.to_owned())
    }

    /// A number, or its text.
    pub fn number(&self, name: &str) -> Result<i64, Failure> {
        let value = self.require(name)?;
        let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        number.ok_or_else(|| Failure::invalid_parameter(name, &value.to_string()))
    }

    pub fn list(&self, name: &str) -> Result<Vec<Value>, Failure> {
        let value = self.require(name)?;
        value.as_array().cloned().ok_or_else(|| Failure::invalid_parameter(name, &value.to_string()))
    }

    /// A list of texts; empty when it is not there.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Failure> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        serde_json::from_value(value.clone())
            .map_err(|_| Failure::invalid_parameter(name, &value.to_string()))
    }

    pub fn object(&self, name: &str) -> Result<Map<String, Value>, Failure> {
        let value = self.require(name)?;
        // Not shown: it may hold a password.
        value.as_object().cloned().ok_or_else(|| Failure::invalid_parameter(name, "(no object)"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_come_as_numbers_and_as_text() {
        let Value::Object(map) = json!({"size": "1048576", "hostID": 3, "bad": [], "none": null}) else {
            panic!()
        };
        let arguments = Arguments(map);
        assert_eq!(arguments.number("size"), Ok(1 << 20));
        assert_eq!(arguments.number("hostID"), Ok(3));
        assert_eq!(arguments.number("bad").unwrap_err().code, 1000);
        assert!(arguments.text("none").unwrap_err().message.contains("'none'"));
        assert!(arguments.text("vmID").unwrap_err().message.contains("VM.__init__()"));
    }
}
