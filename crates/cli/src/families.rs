use anyhow::Result;
use mistralrs::FAMILIES;

/// The table of families, as in the README.
pub fn print() -> Result<()> {
    let width = FAMILIES.iter().map(|family| family.title.len()).max().unwrap_or(0);
    for family in FAMILIES {
        println!("{:width$}  {}  ({})", family.title, family.accepts(), family.architectures.join(", "));
    }
    Ok(())
}
