//! How strongly a LoRA was trained to act: alpha / rank.

use std::path::Path;

use serde_json::{Map, Value};

use super::LoraPart;
use crate::files::read_json;
use crate::{Error, Result};

/// The key of a header under which diffusers stores what PEFT knows of a LoRA.
pub(super) const METADATA: &str = "lora_adapter_metadata";

/// The file beside PEFT's own files that says the same.
const CONFIG: &str = "adapter_config.json";

/// Settings of PEFT that make another change of a weight than that of a LoRA, or another one for each layer.
const REFUSED: [&str; 8] = [
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
];

/// Starts of training that change the weights themselves.
const STARTS: [&str; 6] = ["pissa", "olora", "corda", "loftq", "lora_ga", "mica"];

/// What a file says of alpha beside its tensors.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    said: Map<String, Value>,
    /// Whether it says it of one network alone, without the name of the part.
    bare: bool,
}

impl Scaling {
    /// That of a header's text.
    pub(super) fn of_header(path: &Path, text: &str) -> Result<Self> {
        let said = serde_json::from_str(text)
            .map_err(|source| Error::Json { path: path.to_owned(), source: crate::brief::told_json(source) })?;
        Self { said, bare: false }.checked(path)
    }

    /// That of the file beside one of PEFT's.
    pub(super) fn beside(path: &Path) -> Result<Self> {
        let path = path.with_file_name(CONFIG);
        Self { said: read_json(&path)?, bare: true }.checked(&path)
    }

    fn checked(self, path: &Path) -> Result<Self> {
        let set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Object(entries) => !entries.is_empty(),
            Value::Array(entries) => !entries.is_empty(),
            _ => true,
        };
        let start = |value: &Value| value.as_str().is_some_and(|start| STARTS.iter().any(|own| start.starts_with(own)));
        let refused = self.said.iter().find(|(key, value)| {
            let name = key.rsplit('.').next().unwrap_or(key);
            REFUSED.contains(&name) && set(value) || name == "init_lora_weights" && start(value)
        });
        match refused {
            None => Ok(self),
            Some((key, _)) => {
                let reason = format!("{METADATA}: `{}` is set, which is not supported", crate::brief::brief(key));
                Err(Error::Lora { path: path.to_owned(), reason })
            }
        }
    }

    /// What `up · down` of this rank is multiplied with, where no tensor of alpha says it; 1 if nothing does.
    pub(super) fn factor(&self, part: LoraPart, rank: usize) -> f64 {
        let said = |key: &str| {
            if self.bare { self.said.get(key) } else { self.said.get(&format!("{}.{key}", part.prefix())) }
        };
        let rank = rank as f64;
        let by = if said("use_rslora").and_then(Value::as_bool) == Some(true) { rank.sqrt() } else { rank };
        said("lora_alpha").and_then(Value::as_f64).map_or(1.0, |alpha| alpha / by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Scaling> {
        Scaling::of_header(Path::new("style.safetensors"), text)
    }

    #[test]
    fn alpha_is_that_of_the_part() {
        let scaling = read(
            r#"{ "unet.lora_alpha": 8, "unet.use_dora": false, "unet.alpha_pattern": {}, "text_encoder.lora_alpha": 3,
                 "text_encoder.use_rslora": true, "unet.init_lora_weights": "gaussian" }"#,
        )
        .unwrap();
        assert_eq!(scaling.factor(LoraPart::Network, 4), 2.0);
        assert_eq!(scaling.factor(LoraPart::Text, 9), 1.0);
        assert_eq!(scaling.factor(LoraPart::Text2, 4), 1.0);
    }

    #[test]
    fn what_changes_more_is_refused_by_name() {
        for text in [
            r#"{ "unet.alpha_pattern": { "to_q": 2 } }"#,
            r#"{ "unet.use_dora": true }"#,
            r#"{ "unet.init_lora_weights": "pissa_niter_4" }"#,
        ] {
            let error = read(text).unwrap_err().to_string();
            let key = text.split('"').nth(1).unwrap();
            assert!(error.contains("style.safetensors") && error.contains(key), "{error}");
        }
        assert!(matches!(read("[]"), Err(Error::Json { .. })));
    }
}
