//! Knows: what linkers want to hear of a library that finds Python where it is loaded. Must never know: anything else.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
