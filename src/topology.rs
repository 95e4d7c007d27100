//! Topology files: formats and devices of a model's layers, in YAML.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use nn::{Quant, Selection, Topology, TopologyRule};
use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::Error;
use crate::load::read_named;

/// Devices that models can live on here.
const DEVICES: [&str; 1] = ["cpu"];

/// A topology file: layers (`0-8`, the last not included, or `28`) or a pattern (`/regex/`) → what is said of them, in the file's order.
#[derive(Debug)]
struct Entries(Vec<(String, Entry)>);

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    isq: Option<String>,
    device: Option<String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("layers or patterns, with `isq` and `device` of each")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Reads a topology file.
///
/// # Errors
/// It cannot be read, or says what makes no sense or cannot be done here: in one line, with the file's name.
pub(crate) fn read(path: &Path) -> Result<Topology, Error> {
    let (name, text) = read_named(path)?;
    parse(&text).map_err(|reason| Error::Source(format!("{name}: {reason}")))
}

fn parse(text: &str) -> Result<Topology, String> {
    let entries: Entries =
        serde_saphyr::from_str(text).map_err(|e| e.to_string().lines().next().unwrap_or_default().to_string())?;
    let mut rules = Vec::with_capacity(entries.0.len());
    for (label, Entry { isq, device }) in entries.0 {
        let refused = |reason: String| format!("{label}: {reason}");
        let which = selection(&label).map_err(refused)?;
        if let Some(device) = device {
            check_device(&device).map_err(refused)?;
        }
        if let Some(quant) = isq {
            let quant = Quant::from_str(&quant).map_err(refused)?;
            rules.push(TopologyRule { label, which, quant });
        }
    }
    Ok(Topology::new(rules))
}

fn selection(label: &str) -> Result<Selection, String> {
    if let Some(pattern) = label.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        let compiled = Regex::new(pattern);
        return compiled.map(Selection::Name).map_err(|e| {
            format!(
                "not a regular expression: {}",
                e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")
            )
        });
    }
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < usize::MAX);
    let layers = match label.split_once('-') {
        Some((start, end)) => number(start).zip(number(end)),
        None => number(label).map(|layer| (layer, layer + 1)),
    };
    match layers {
        Some((start, end)) if start < end => Ok(Selection::Layers(start..end)),
        Some(_) => Err("a range of layers must end behind its start; the last layer is not included".into()),
        None => Err("neither layers (\"0-8\", \"28\") nor a pattern (\"/mlp\\.down_proj/\")".into()),
    }
}

fn check_device(device: &str) -> Result<(), String> {
    let known = DEVICES.contains(&device);
    known.then_some(()).ok_or_else(|| format!("there is no device {device:?} here; there is {}", DEVICES.join(", ")))
}

/// Which layers live on which device: `ORDINAL:LAYERS;ORDINAL:LAYERS`, or one number for the first device. What is not named is on the
/// processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLayers(Vec<(usize, usize)>);

impl FromStr for DeviceLayers {
    type Err = String;

    /// # Errors
    /// Something else, a device that comes twice, or one that is not here.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let part = |part: &str| match part.split_once(':') {
            Some((device, layers)) => number(device).zip(number(layers)),
            None if !text.contains([';', ':']) => number(part).map(|layers| (0, layers)),
            None => None,
        };
        let form = || format!("{text:?} is not of the form DEVICE:LAYERS;DEVICE:LAYERS, with numbers");
        let parts: Vec<(usize, usize)> = text.split(';').map(part).collect::<Option<_>>().ok_or_else(form)?;
        let mut devices: Vec<usize> = parts.iter().map(|(device, _)| *device).collect();
        devices.sort_unstable();
        if let Some(pair) = devices.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("device {} is named twice", pair[0]));
        }
        match parts.iter().find(|(_, layers)| *layers > 0) {
            Some((device, _)) => Err(format!("there is no accelerator {device} here; there is {}", DEVICES.join(", "))),
            None => Ok(Self(parts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_or_refused_in_one_line() {
        let topology = parse("0-8:\n  isq: Q3K\n  device: cpu\n28:\n  isq: 8\n'/mlp\\.(\\d+)/':\n  isq: q6k\n").unwrap();
        let quants = ["a.layers.7.x", "a.layers.8.x", "a.layers.28.x", "a.layers.28.mlp.3"].map(|name| topology.quant(name));
        assert_eq!(quants, [Some(Quant::Q3K), None, Some(Quant::Q8_0), Some(Quant::Q6K)]);
        let cases = [
            ("- a", "mapping"),
            ("0-8:\n  isk: 4", "isk"),
            ("0-8:\n  isq: q9", "0-8: \"q9\" is not a quantisation"),
            ("0-8:\n  device: cuda[0]", "0-8: there is no device \"cuda[0]\" here; there is cpu"),
            ("8-8:\n  isq: 4", "must end behind its start"),
            ("eight:\n  isq: 4", "neither layers"),
            ("'/(/':\n  isq: 4", "not a regular expression: unclosed group"),
            ("0-8:\n  isq: 4\n0-8:\n  isq: 5", "duplicate"),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err();
            assert!(message.contains(expected) && !message.contains('\n'), "{text:?}: {message}");
        }
    }

    #[test]
    fn device_layers_are_read_or_refused() {
        assert_eq!("0:0;1:0".parse(), Ok(DeviceLayers(vec![(0, 0), (1, 0)])));
        let cases = [
            ("20", "no accelerator 0 here; there is cpu"),
            ("0:20;1:4", "no accelerator 0"),
            ("0:1;0:2", "named twice"),
            ("0:x", "not of the form"),
            ("3;4", "not of the form"),
            ("", "not of the form"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<DeviceLayers>().unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }
}
