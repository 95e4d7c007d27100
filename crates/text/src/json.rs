//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it: models are trained on prompts that were rendered so.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// One line with `", "` and `": "`, or indented by `indent` spaces.
pub fn dumps(value: &impl Serialize, indent: Option<usize>) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, OneLine))?,
        Some(width) => {
            let spaces = " ".repeat(width);
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(spaces.as_bytes())))?
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct OneLine;

impl OneLine {
    fn separate<W: ?Sized + io::Write>(writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn writes_what_python_writes() {
        let value = json!({"b": [1, 2.5, "é<>&'"], "a": {}, "c": [], "d": null});
        let cases = [
            (None, r#"{"b": [1, 2.5, "é<>&'"], "a": {}, "c": [], "d": null}"#),
            (Some(2), "{\n  \"b\": [\n    1,\n    2.5,\n    \"é<>&'\"\n  ],\n  \"a\": {},\n  \"c\": [],\n  \"d\": null\n}"),
        ];
        for (indent, expected) in cases {
            assert_eq!(super::dumps(&value, indent).unwrap(), expected);
        }
    }
}
