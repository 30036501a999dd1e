//! What is made when it is first needed, and may fail.

use std::cell::OnceCell;

/// What `cell` holds; `make` makes it if that is nothing.
pub(crate) fn get_or_make<T, E>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// What `slot` holds; `load` loads it if that is nothing.
pub(crate) fn get_or_load<T, E>(slot: &mut Option<T>, load: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    let loaded = match slot.take() {
        Some(loaded) => loaded,
        None => load()?,
    };
    Ok(slot.insert(loaded))
}
