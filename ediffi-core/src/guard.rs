//! Turns panics of `tch` into errors.
//!
//! An operation of `tch` 0.24 that takes a number (`f_mul_scalar`, `f_clamp`, `f_full`, …) panics when it fails: its
//! temporary scalar is dropped before the error is returned, and that `Drop` unwraps the pending error. Running out of
//! memory is the usual cause. Every public call into libtorch therefore runs inside [`guarded`].

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tch::TchError;

/// Runs `compute` and returns a panic of `tch` as an error ([`Error::Torch`](crate::Error::Torch) in this crate). Any other
/// panic, such as one of an observer, continues.
///
/// The caller has to make sure that a half-finished `compute` leaves nothing behind that later calls would use.
///
/// # Errors
/// Those of `compute`, and what libtorch said in the panic.
pub fn guarded<T, E: From<TchError>>(compute: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|payload| {
        let message = payload.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        match message.split_once("value: Torch(\"") {
            Some((_, torch)) => {
                // The message is printed as a literal: what follows its first `\n` is a backtrace of C++.
                let line = torch.split("\\n").next().unwrap_or(torch);
                Err(TchError::Torch(line.trim_end_matches("\")").to_owned()).into())
            }
            None => resume_unwind(payload),
        }
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::Error;

    #[test]
    fn a_panic_of_tch_is_an_error() {
        let too_large = || Tensor::f_full([1 << 50], 1.0, (Kind::Float, Device::Cpu));
        let error = guarded(|| Ok::<_, Error>(too_large().is_ok())).unwrap_err();
        assert!(matches!(error, Error::Torch { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("memory") || message.contains("size"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn any_other_panic_continues() {
        let panic = catch_unwind(|| guarded::<(), Error>(|| panic!("an observer's own"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"an observer's own"));
    }
}
