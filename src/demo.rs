//! placeholder
/// Runs the demo.
pub fn run() -> Result<(), String> {
    Ok(())
}
