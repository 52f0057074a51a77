//! To come.
pub(crate) fn demo(_: bool) -> anyhow::Result<()> {
    Ok(())
}
