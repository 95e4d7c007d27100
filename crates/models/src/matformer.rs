//! Tables of the slices of nested models (MatFormer; Devvrit et al. 2023, arXiv:2310.07707): a row per slice, in CSV with the columns
//! of Google's slicing configurations, or in JSON as a list of objects with the same keys.

use nn::Slice;
use serde_json::Value;

use crate::ModelError;

const NAME: &str = "name";
const WIDTHS: &str = "FFN Hidden Dims";
const SKIPPED: &str = "Layers Skipped";

/// A table of slices.
#[derive(Debug, Clone)]
pub struct SliceTable {
    slices: Vec<Slice>,
}

impl SliceTable {
    /// Reads a table: JSON if it begins with a bracket, otherwise CSV. `label` says in errors where it is from.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming row and column.
    pub fn parse(label: &str, text: &str) -> Result<Self, ModelError> {
        let refused = |reason: String| ModelError::Config { file: label.to_string(), reason };
        let rows = if text.trim_start().starts_with('[') { json_rows(text) } else { csv_rows(text) };
        let rows = rows.map_err(refused)?.into_iter().map(|[name, widths, skipped]| slice(name, &widths, &skipped));
        Ok(Self { slices: rows.collect::<Result<_, _>>().map_err(refused)? })
    }

    /// A slice by its exact name.
    ///
    /// # Errors
    /// [`ModelError::Slice`], listing the names that there are.
    pub fn find(&self, name: &str) -> Result<Slice, ModelError> {
        let unknown = || {
            let names: Vec<String> = self.slices.iter().map(|slice| format!("{:?}", slice.name)).collect();
            ModelError::Slice { name: name.to_string(), reason: format!("is not in the table; there are {}", names.join(", ")) }
        };
        self.slices.iter().find(|slice| slice.name == name).cloned().ok_or_else(unknown)
    }
}

/// The cells that matter of each row: name, widths, skipped layers.
type Rows = Result<Vec<[String; 3]>, String>;

fn csv_rows(text: &str) -> Rows {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let column = |name: &str| header.iter().position(|cell| cell == name).ok_or(format!("there is no column {name:?}"));
    let columns = [column(NAME)?, column(WIDTHS)?, column(SKIPPED)?];
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(|e| e.to_string())?;
        Ok(columns.map(|column| record.get(column).unwrap_or_default().to_string()))
    };
    reader.records().map(row).collect()
}

fn json_rows(text: &str) -> Rows {
    let rows: Vec<Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let cell = |row: &Value, key: &str| match &row[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(rows.iter().map(|row| [NAME, WIDTHS, SKIPPED].map(|key| cell(row, key))).collect())
}

fn slice(name: String, widths: &str, skipped: &str) -> Result<Slice, String> {
    if name.is_empty() {
        return Err(format!("a row has no {NAME:?}"));
    }
    let column = |key: &str, cell: &str| numbers(cell).map_err(|bad| format!("{name:?}, {key:?}: {bad:?} is not a number"));
    let inner = column(WIDTHS, widths)?;
    let mut skipped = column(SKIPPED, skipped)?;
    skipped.sort_unstable();
    skipped.dedup();
    Ok(Slice { inner, skipped, name })
}

/// "[2_048 * 8, 16384]", or nothing. An error is the member that is none.
fn numbers(cell: &str) -> Result<Vec<usize>, String> {
    let inside = cell.trim().trim_start_matches('[').trim_end_matches(']');
    let members = inside.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty());
    let factor = |text: &str| text.trim().replace('_', "").parse::<usize>().ok();
    let product = |member: &str| member.split('*').try_fold(1usize, |product, text| product.checked_mul(factor(text)?));
    members.map(|member| product(member).ok_or_else(|| member.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "name,# Layers,# Effective Params (B),MMLU PT accuracy,FFN Hidden Dims,Layers Skipped";

    #[test]
    fn rows_of_both_kinds() {
        let csv = format!("{HEADER}\nSmall (a),2,1.9,50%,\"[2_048 * 4, 16384]\",\"[20, 3]\"\nWhole,1,4,60%,[1_0],\n");
        let json = r#"[{"name": "Small (a)", "FFN Hidden Dims": ["2_048 * 4", 16384], "Layers Skipped": [20, 3]},
                       {"name": "Whole", "FFN Hidden Dims": [10]}]"#;
        for text in [csv.as_str(), json] {
            let table = SliceTable::parse("slices", text).unwrap();
            let small = table.find("Small (a)").unwrap();
            assert_eq!((small.inner, small.skipped), (vec![8192, 16384], vec![3, 20]), "{text}");
            let whole = table.find("Whole").unwrap();
            assert_eq!((whole.inner, whole.skipped), (vec![10], vec![]), "{text}");
            let unknown = table.find("small").unwrap_err().to_string();
            assert_eq!(unknown, "slice \"small\" is not in the table; there are \"Small (a)\", \"Whole\"");
        }
    }

    #[test]
    fn published_slices_are_of_one_model() {
        for (family, table) in crate::FAMILIES.iter().filter_map(|family| Some((family.name, family.slices?))) {
            let slices = SliceTable::parse(family, table).unwrap().slices;
            let layers: Vec<usize> = slices.iter().map(|slice| slice.inner.len() + slice.skipped.len()).collect();
            assert!(slices.len() > 1 && layers.iter().all(|count| *count == layers[0]), "{family}: {layers:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("name,FFN Hidden Dims\nA,[1]".to_string(), "there is no column \"Layers Skipped\""),
            (format!("{HEADER}\nA,1,1,1,[x],"), "\"A\", \"FFN Hidden Dims\": \"x\" is not a number"),
            (format!("{HEADER}\nA,1,1,1,[1],[99999999999999999999]"), "\"Layers Skipped\": \"99999999999999999999\" is not"),
            ("[{\"FFN Hidden Dims\": [1]}]".into(), "a row has no \"name\""),
            ("[1,".into(), "EOF"),
        ];
        for (text, expected) in cases {
            let error = SliceTable::parse("slices.csv", &text).unwrap_err().to_string();
            assert!(error.starts_with("slices.csv: ") && error.contains(expected), "{error}");
        }
    }
}
