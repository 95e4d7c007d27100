//! Functions of Python that models call.

use std::collections::HashMap;

use mistralrs::{ChatRequest, ServerTool, ToolOutput};
use pyo3::prelude::*;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Functions by their names: `callback(name, arguments)` returns what the model reads.
pub type Callbacks = HashMap<String, Py<PyAny>>;

/// Has the functions of a request that have a callback run here.
pub fn equip(request: &mut ChatRequest, callbacks: Callbacks) -> Result<(), Failure> {
    for (name, callback) in callbacks {
        let named = |tool: &Value| tool["function"]["name"] == name.as_str();
        let Some(at) = request.tools.iter().position(named) else { continue };
        let definition = request.tools.remove(at);
        request.server_tools.add(ServerTool::blocking(&definition, move |arguments| call(&callback, &name, arguments))?)?;
    }
    Ok(())
}

fn call(callback: &Py<PyAny>, name: &str, arguments: Map<String, Value>) -> Result<ToolOutput, String> {
    let arguments = Value::Object(arguments).to_string();
    let called = Python::try_attach(|py| {
        let arguments = py.import("json")?.call_method1("loads", (arguments,))?;
        callback.call1(py, (name, arguments))?.extract::<String>(py)
    });
    match called {
        Some(Ok(text)) => Ok(text.into()),
        Some(Err(e)) => Err(e.to_string()),
        None => Err("Python has ended".into()),
    }
}
