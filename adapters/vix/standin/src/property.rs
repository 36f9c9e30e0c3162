//! Values of properties, and lists of them.

use vmtask_vix_abi::{Handle, error_code, property};

use crate::failure::Failure;
use crate::handles;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Integer(i32),
    Int64(i64),
    Bool(bool),
    Text(String),
    /// Whoever keeps this keeps a reference.
    Handle(Handle),
    Blob(Vec<u8>),
}

/// Some properties. Handles in it are held for as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Properties(Vec<(i32, Value)>);

impl Properties {
    /// Adds one; takes over the caller's reference to a handle.
    pub(crate) fn with(mut self, id: i32, value: Value) -> Self {
        self.0.push((id, value));
        self
    }

    pub(crate) fn text(self, id: i32, text: impl Into<String>) -> Self {
        self.with(id, Value::Text(text.into()))
    }

    /// The value of one.
    pub(crate) fn get(&self, id: i32) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, value)| value)
    }
}

impl Drop for Properties {
    fn drop(&mut self) {
        for (_, value) in &self.0 {
            if let Value::Handle(handle) = value {
                handles::release(*handle);
            }
        }
    }
}

/// The number of a property's type, for a property of any object.
pub(crate) fn type_number(id: i32) -> Result<i32, Failure> {
    property::type_of(id).map(property::Type::number).ok_or_else(|| unknown(id))
}

/// An object lacks a property.
pub(crate) fn unknown(id: i32) -> Failure {
    let name = property::name(id).unwrap_or("a property without a name");
    Failure::new(error_code::UNRECOGNIZED_PROPERTY, format!("this handle has no property {id} ({name})"))
}
