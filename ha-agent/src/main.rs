//! Binary entry point.
fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().unwrap_or_default();
    let plain = args.next().as_deref() == Some("--plain");
    println!("{}", ha_agent::replay::replay(&std::fs::read_to_string(file)?, plain)?);
    Ok(())
}
