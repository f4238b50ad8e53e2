//! Tests of policies: what they read, how they are asked, and that the rules of the roles are today's.
//!
//! Tests alone have this file. Nothing is written.

use schemas::policy::ROLES;
use schemas::routes::Route;

use super::*;

const TYPE: &str = "11100000DE0000022B002";

fn question<'a>(organisation: &'a Uscc, roles: &'a [Role]) -> Question<'a> {
    Question {
        class: Class::Verify,
        organisation,
        registered: 1,
        roles,
        license_type: Some(TYPE.parse().expect("a type")),
        published: (1, "natural"),
        purpose: Some("贷款"),
        scenario: Some(Scenario::Finance),
        item: Some("350100001"),
        stage: Some("受理"),
        mode: None,
        case_number: Some("CS1"),
        user_name: Some("张三"),
    }
}

fn bank() -> Uscc {
    schemas::synthetic::Synthetic::new(3).uscc()
}

fn read(text: &str) -> Policies {
    let read = Policies::read(text);
    assert!(read.is_ok(), "{text}: {:?}", read.err());
    read.expect("just asserted")
}

fn fault(text: &str) -> Fault {
    Policies::read(text).err().expect("a fault")
}

#[test]
fn the_rules_of_the_roles_are_those_of_the_routes() {
    let (policies, bank) = (read(ROLES), bank());
    assert!(policies.warnings().is_empty() && policies.uncached().is_empty(), "{:?}", policies.warnings());
    for class in Class::ALL {
        for (role, registered) in Role::ALL.into_iter().zip(1..) {
            let routes = Route::ALL.iter().filter(|route| route.class() == Some(*class));
            let admitted = routes.clone().any(|route| route.contract().roles.admit(&[role]));
            assert!(routes.count() > 0, "{class:?} is no route's");
            let roles = [role];
            let said = policies.ask(&Question { class: *class, registered, ..question(&bank, &roles) });
            assert_eq!(said == Said::Permits, admitted, "{class:?} {role:?}");
        }
    }
}

#[test]
fn what_would_be_deep_or_long_to_read_is_refused_by_its_place() {
    let nested = |depth: usize| {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        format!("permit (principal, action, resource) when {{ {open}true{close} }};\n")
    };
    // The scope and the condition are brackets as well.
    read(&nested(MAX_DEPTH - 1));
    assert!(fault(&nested(MAX_DEPTH)).what.contains("brackets"));
    // Neither text nor comments are brackets, and each policy is bounded by itself.
    let text = "(".repeat(MAX_DEPTH + 1);
    read(&format!("// {text}\n@id(\"\\\"{text}\")\npermit (principal, action, resource);\n"));
    let long = |bytes: usize| format!("// {}\npermit (principal, action, resource);\n", "a".repeat(bytes));
    read(&[long(MAX_POLICY_BYTES - 100), long(MAX_POLICY_BYTES - 100)].concat());
    let fault = fault(&[ROLES, &long(MAX_POLICY_BYTES)].concat());
    assert!(fault.what.contains("bytes") && fault.line > 1, "{fault}");
}

#[test]
fn each_question_fits_the_schema() {
    let bank = bank();
    let bare = Question {
        license_type: None,
        published: (0, "none"),
        purpose: None,
        scenario: None,
        item: None,
        stage: None,
        case_number: None,
        user_name: None,
        ..question(&bank, &[])
    };
    let with_mode = Question { mode: Some("face"), ..question(&bank, &Role::ALL) };
    for class in Class::ALL {
        for asked in [bare, with_mode] {
            assert!(request(&Question { class: *class, ..asked }, Some(&CHECKED)).is_some(), "{class:?}");
        }
    }
}

#[test]
fn faults_name_their_line_and_column() {
    let good = "permit (principal, action, resource);\n";
    let cases = [
        ("permit (principal, action, resource)", 1),
        ("permit (principal, action, resource) when { context.purpose == \"x\" };", 1),
        ("permit (principal in Role::\"relyng\", action, resource);", 1),
        ("permit (principal, action == Action::\"verfy\", resource);", 1),
        ("permit (principal, action, resource) when { context.case == \"x\" };", 1),
        ("permit (principal == ?principal, action, resource);", 0),
        (
            "forbid (principal, action, resource) when { datetime(\"2026-01-01T00:00:00+08:00\") < \
         datetime(\"2026-01-02\") };",
            1,
        ),
    ];
    for (text, lines) in cases {
        let Fault { line, column, what } = fault(&format!("{good}{text}"));
        assert_eq!(line, 1 + lines, "{text}: {what}");
        assert!(column >= 1 && !what.is_empty(), "{text}: {what}");
    }
    let Fault { line, column, .. } = fault("// 一\n\n  permit (principals, action, resource);");
    assert_eq!((line, column), (3, 11));
    assert_eq!(fault(&" ".repeat(MAX_BYTES + 1)).line, 1);
}

/// A set is asked again when anything that it reads is another, and only then.
#[test]
fn an_answer_is_kept_under_what_policies_read() {
    let bank = bank();
    let asked = question(&bank, &[Role::Relying]);
    let everything = Question {
        license_type: None,
        published: (2, "legal"),
        purpose: Some("保险"),
        scenario: None,
        item: None,
        stage: Some("决定"),
        mode: Some("face"),
        case_number: Some("CS2"),
        user_name: None,
        ..asked
    };
    let roles = read(ROLES);
    for one in [asked, everything] {
        assert_eq!(roles.ask(&one), Said::Permits);
    }
    assert_eq!(roles.kept(), 1, "the rules of the roles read nothing else");
    // A registration that has changed, and another caller.
    assert_eq!(roles.ask(&Question { registered: 2, roles: &[], ..asked }), Said::Nothing);
    assert_eq!(roles.ask(&asked), Said::Permits);
    assert_eq!(roles.kept(), 2);

    let by = |when: &str| read(&format!("permit (principal, action, resource) when {{ {when} }};"));
    type Others = fn(Question<'_>) -> Question<'_>;
    let cases: [(&str, Others); 7] = [
        ("context has purpose && context.purpose == \"贷款\"", |asked| Question { purpose: None, ..asked }),
        ("context has scenario && context.scenario == \"finance\"", |asked| Question {
            scenario: Some(Scenario::Tax),
            ..asked
        }),
        ("context has item && context.item like \"3501*\"", |asked| Question { item: Some("11"), ..asked }),
        ("context has stage && context.stage == \"受理\"", |asked| Question {
            stage: Some("审核"),
            ..asked
        }),
        ("!(context has mode)", |asked| Question { mode: Some("face"), ..asked }),
        ("resource.holders == \"natural\"", |asked| Question { published: (2, "legal"), ..asked }),
        ("resource == LicenseType::\"11100000DE0000022B002\"", |asked| Question {
            license_type: None,
            ..asked
        }),
    ];
    for (when, other) in cases {
        let policies = by(when);
        assert!(policies.uncached().is_empty(), "{when}");
        assert_eq!(policies.ask(&asked), Said::Permits, "{when}");
        assert_eq!(policies.ask(&other(asked)), Said::Nothing, "{when}");
        assert_eq!(policies.kept(), 2, "{when}");
        // What is of one request alone makes no other answer.
        assert_eq!(policies.ask(&Question { case_number: None, user_name: None, ..asked }), Said::Permits);
        assert_eq!(policies.kept(), 2, "{when}");
    }
    let scoped = read("permit (principal, action, resource == LicenseType::\"11100000DE0000022B002\");");
    assert_eq!(scoped.ask(&asked), Said::Permits);
    assert_eq!(scoped.ask(&Question { license_type: None, ..asked }), Said::Nothing);
}

#[test]
fn a_policy_that_reads_the_request_is_asked_each_time_and_named() {
    let bank = bank();
    let policies = read(
        "@id(\"nights\") forbid (principal, action == Action::\"verify\", resource)
           when { context has userName && context.userName == \"李四\" };
         permit (principal, action, resource);
         permit (principal, action == Action::\"trace\", resource) when { {c: context}.c has caseNumber };",
    );
    let [nights, traces] = policies.uncached() else { unreachable!("{:?}", policies.uncached()) };
    assert_eq!((&*nights.name, &*nights.reads), ("nights", &["userName"][..]));
    // Whatever takes the context as a whole may read all of it.
    assert_eq!((&*traces.name, &*traces.reads), ("policy 3", &["caseNumber", "userName"][..]));
    let asked = question(&bank, &[Role::Relying]);
    for (user_name, said) in
        [("张三", Said::Permits), ("李四", Said::Forbids), ("张三", Said::Permits), ("李四", Said::Forbids)]
    {
        assert_eq!(policies.ask(&Question { user_name: Some(user_name), ..asked }), said);
    }
    assert_eq!(policies.kept(), 1);
    // Another action has none such.
    let other = Question { class: Class::Retrieve, user_name: Some("李四"), ..asked };
    assert_eq!(policies.ask(&other), Said::Permits);
}

#[test]
fn an_error_denies_although_another_policy_permits() {
    let bank = bank();
    let asked = question(&bank, &[Role::Relying]);
    // Sums are checked when they are made.
    let overflow = "forbid (principal, action, resource) unless { 9223372036854775807 + 1 > 0 };";
    let policies = read(&format!("permit (principal, action, resource);\n{overflow}"));
    assert_eq!(policies.ask(&asked), Said::Fails);
    assert_eq!(policies.ask(&asked), Said::Fails, "also from memory");
    let of_request = format!(
        "permit (principal, action, resource);\n{}",
        overflow.replace("> 0", "> 0 || context has caseNumber")
    );
    assert_eq!(read(&of_request).ask(&asked), Said::Fails);
    assert_eq!(Policies::unreadable("?").ask(&asked), Said::Fails);
    assert_eq!(read("").ask(&asked), Said::Nothing);
}

#[test]
fn long_facts_are_asked_each_time_and_memory_has_a_bound() {
    let bank = bank();
    let policies = read("permit (principal, action, resource) when { context has purpose };");
    let asked = question(&bank, &[]);
    let long = "贷".repeat(100);
    assert_eq!(policies.ask(&Question { purpose: Some(&long), ..asked }), Said::Permits);
    assert_eq!(policies.kept(), 0);
    for number in 0..=u32::try_from(MAX_KEPT).expect("small") {
        policies.ask(&Question { registered: number, ..asked });
    }
    assert_eq!(policies.kept(), 1);
}

#[test]
fn two_texts_are_not_taken_for_one() {
    let bank = bank();
    let policies = read(
        "permit (principal, action, resource)
           when { context has purpose && context.purpose == \"ab\" && context has item && context.item == \"c\" };",
    );
    let asked = question(&bank, &[]);
    let with = |purpose, item| policies.ask(&Question { purpose: Some(purpose), item: Some(item), ..asked });
    assert_eq!(with("ab", "c"), Said::Permits);
    assert_eq!(with("a", "bc"), Said::Nothing);
    assert_ne!(hash("a"), hash("b"));
}
