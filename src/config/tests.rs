//! The layers of the configuration, and what cannot be.

use figment::Jail;

use super::*;

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    Jail::expect_with(|jail| {
        jail.clear_env();
        jail.set_env("INGLE_HOME", "store");
        let plain = Config::load(&Flags::default(), None).unwrap();
        assert_eq!(plain.listen.to_string(), LISTEN_DEFAULT);
        assert_eq!((plain.threads, plain.home), (None, PathBuf::from("store")));
        jail.create_file(FILE_NAME, "threads = 3\nctx = 100\nlog_format = \"json\"\n")?;
        jail.set_env("INGLE_THREADS", "5");
        let flags = Flags {
            ctx: NonZeroU32::new(700),
            ..Flags::default()
        };
        let config = Config::load(&flags, None).unwrap();
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.threads, NonZeroUsize::new(5));
        assert_eq!(config.ctx, NonZeroU32::new(700));
        Ok(())
    });
}

#[test]
fn offline_and_folders_are_said_as_people_say_them() {
    Jail::expect_with(|jail| {
        jail.clear_env();
        jail.set_env("INGLE_HOME", "store");
        for (text, expected) in [("1", true), ("0", false), ("true", true), ("on", true)] {
            jail.set_env("INGLE_OFFLINE", text);
            let config = Config::load(&Flags::default(), None).unwrap();
            assert_eq!(config.offline, expected, "{text}");
        }
        for text in ["2", "perhaps"] {
            jail.set_env("INGLE_OFFLINE", text);
            let error = Config::load(&Flags::default(), None)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("INGLE_OFFLINE: ") && error.contains("neither"),
                "{error}"
            );
        }
        jail.set_env("INGLE_OFFLINE", "0");
        let folders = |flags: &Flags| Config::load(flags, None).unwrap().model_folders;
        assert!(folders(&Flags::default()).is_empty());
        jail.create_file(FILE_NAME, "model_folders = [\"/a b\", \"c\"]\n")?;
        assert_eq!(
            folders(&Flags::default()),
            [Path::new("/a b"), Path::new("c")]
        );
        let several = std::env::join_paths(["/d e", "f"]).unwrap();
        jail.set_env("INGLE_MODEL_FOLDERS", several.to_str().unwrap());
        assert_eq!(
            folders(&Flags::default()),
            [Path::new("/d e"), Path::new("f")]
        );
        let flags = Flags {
            model_folders: vec![PathBuf::from("g")],
            ..Flags::default()
        };
        assert_eq!(folders(&flags), [Path::new("g")]);
        Ok(())
    });
}

#[test]
fn what_cannot_be_is_named_with_its_place() {
    Jail::expect_with(|jail| {
        jail.clear_env();
        jail.set_env("INGLE_HOME", "store");
        let sentence = || {
            let error = Config::load(&Flags::default(), None).unwrap_err();
            error.to_string()
        };
        jail.create_file(FILE_NAME, "thread = 3\n")?;
        assert!(sentence().starts_with(
            "thread in ingle.toml, line 1: there is no such key: did you mean threads?"
        ));
        jail.create_file(FILE_NAME, "threads = 0\n")?;
        assert!(
            sentence().starts_with("threads in ingle.toml: "),
            "{}",
            sentence()
        );
        jail.create_file(FILE_NAME, "threads = [\n")?;
        assert!(sentence().contains("ingle.toml"), "{}", sentence());
        jail.create_file(FILE_NAME, "")?;
        jail.set_env("INGLE_LISTEN", "here");
        assert!(sentence().starts_with("INGLE_LISTEN: "), "{}", sentence());
        jail.set_env("INGLE_LISTEN", "127.0.0.1:1");
        // Somebody else's variable.
        jail.set_env("INGLE_API_KEY", "x");
        assert!(Config::load(&Flags::default(), None).is_ok());
        let missing = Config::load(&Flags::default(), Some(Path::new("none.toml")));
        assert!(missing.unwrap_err().to_string().contains("none.toml"));
        Ok(())
    });
}

#[test]
fn an_address_others_reach_needs_a_key_or_a_word() {
    Jail::expect_with(|jail| {
        jail.clear_env();
        jail.set_env("INGLE_HOME", "store");
        let with = |flags: Flags| Config::load(&flags, None).unwrap().check_serving();
        let open = Flags {
            listen: "0.0.0.0:1".parse().ok(),
            ..Flags::default()
        };
        let error = with(open.clone()).unwrap_err().to_string();
        assert!(error.starts_with("0.0.0.0:1 can be reached"), "{error}");
        let insecure = Some(true);
        assert!(
            with(Flags {
                insecure,
                ..open.clone()
            })
            .is_ok()
        );
        let api_key_file = Some(PathBuf::from("keys"));
        assert!(
            with(Flags {
                api_key_file,
                ..open
            })
            .is_ok()
        );
        assert!(with(Flags::default()).is_ok());
        Ok(())
    });
}
