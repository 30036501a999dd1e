//! Where a failure inside `tch` that is raised as a panic becomes an error.
//!
//! An operation of `tch` 0.24 that takes a number (`f_mul_scalar`, `f_clamp`, `f_full`, …) and fails does not return its
//! error: the temporary scalar is dropped first, and its `Drop` unwraps the pending error. Running out of memory is how
//! that happens here. Every public call into libtorch therefore runs behind this guard.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::{Error, Result};

/// Runs `compute`. A panic that carries an error of libtorch is returned as [`Error::Torch`]; any other panic, such as one of
/// an observer, goes on.
pub(crate) fn guarded<T>(compute: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing half-changed is seen afterwards: a pipeline's state is rebuilt from its files where a part is missing.
    catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|payload| {
        let message = payload.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        match message.split_once("value: Torch(\"") {
            Some((_, torch)) => {
                let line = torch.split("\\n").next().unwrap_or(torch);
                Err(Error::Torch { message: line.trim_end_matches("\")").to_owned() })
            }
            None => resume_unwind(payload),
        }
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn a_panic_of_tch_is_an_error() {
        let too_large = || Tensor::f_full([1 << 50], 1.0, (Kind::Float, Device::Cpu));
        let error = guarded(|| Ok(too_large().is_ok())).unwrap_err();
        let Error::Torch { message } = &error else { panic!("{error}") };
        assert!(message.contains("memory") || message.contains("size"), "{message}");
        assert_eq!(error.to_string().lines().count(), 1);
    }

    #[test]
    fn any_other_panic_goes_on() {
        let panic = catch_unwind(|| guarded::<()>(|| panic!("an observer's own"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"an observer's own"));
    }
}
