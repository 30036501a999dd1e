//! From captioned pictures and a plan to a model that [`ediffi`] draws with.
//!
//! A [`plan::Plan`] says in TOML which networks a model has, how they are trained, and from what they start: from new weights, from each other
//! along the tree of experts, or from a model folder. [`train`] carries it out on any [`Dataset`](ediffi_train::dataset::Dataset), such as
//! what [`ediffi_data::open`] opens. Killed at any time, the same call goes on where it was. On the way there are losses by noise level
//! on pictures that are held out ([`validation`]), sheets of samples, and event files for TensorBoard. At the end there is a model folder.
//! [`train_together`] does the same in several processes, on one machine or many; [`train_in_groups`] has groups of them train the
//! networks of a plan side by side.
//!
//! ```no_run
//! use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
//! use ediffi_trainer::{Options, plan, train};
//!
//! let plan = plan::find("laptop")?;
//! let dataset = ediffi_data::open("pictures")?;
//! let runtime = Runtime::new(DeviceChoice::Auto, Precision::Auto)?;
//! train(&plan, dataset, &Options::new("run", runtime), &mut ())?;
//!
//! let pipeline = ediffi::Pipeline::open("run/model")?;
//! pipeline.generate(&ediffi::Request::new("a red flower"))?.images[0].save("flower.png")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assemble;
mod claim;
mod data;
mod differences;
mod encode;
mod encoders;
pub mod ensemble;
mod error;
mod kept;
mod measured;
mod measuring;
pub mod model_folder;
mod network;
mod observer;
mod options;
mod own_t5;
pub mod plan;
mod preview;
mod processes;
mod run_folder;
pub mod sheet;
mod sheets;
mod start;
mod subject;
mod tensorboard;
mod together;
mod trainer;
pub mod validation;
mod vocabulary;
mod watch;
mod workshop;

pub use error::{Error, Result};
pub use observer::{Event, Observer};
pub use options::{Options, Outcome};
pub use processes::Processes;
pub use trainer::{encode_captions, train, train_in_groups, train_together};
