//! Enumerations in the JSON that people read: as words, in lower case and without their type's name.

/// A module for `serde(with)` over a field that holds one of an enumeration's numbers.
macro_rules! by_word {
    ($module:ident, $kind:ident, $prefix:literal) => {
        pub mod $module {
            use serde::de::Error;
            use serde::{Deserialize, Deserializer, Serializer};

            use crate::grpc::$kind;

            pub fn serialize<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
                let name = $kind::try_from(*number).unwrap_or_default().as_str_name();
                serializer.serialize_str(&name.trim_start_matches($prefix).to_ascii_lowercase())
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
                let word = String::deserialize(deserializer)?;
                let kind = $kind::from_str_name(&format!("{}{}", $prefix, word.to_ascii_uppercase()));
                kind.map(i32::from).ok_or_else(|| D::Error::custom(format!("{word:?} is none of the known words")))
            }
        }
    };
}

by_word!(part_kind, PartKind, "PART_KIND_");
by_word!(check_status, CheckStatus, "CHECK_STATUS_");

#[cfg(test)]
mod tests {
    use crate::grpc::{Check, CheckStatus, Part, PartKind};

    #[test]
    fn people_read_words() {
        let part = Part { name: "kubelet".into(), kind: PartKind::Binary.into(), ..Part::default() };
        let text = serde_json::to_string(&part).unwrap();
        assert!(text.contains(r#""kind":"binary""#), "{text}");
        assert_eq!(serde_json::from_str::<Part>(&text).unwrap(), part);
        assert_eq!(serde_json::from_str::<Part>(r#"{"name":"x"}"#).unwrap().kind(), PartKind::Unspecified);
        assert!(serde_json::from_str::<Part>(r#"{"kind":"tar"}"#).is_err());
        let check = Check { status: CheckStatus::Fail.into(), ..Check::default() };
        assert!(serde_json::to_string(&check).unwrap().contains(r#""status":"fail""#));
    }
}
