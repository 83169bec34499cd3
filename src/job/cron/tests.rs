use super::expression::Cron;
use super::parse::NICKNAMES;

fn values(source: &str) -> [Vec<i8>; 5] {
    source.parse::<Cron>().unwrap().fields().unwrap()
}

fn error(source: &str) -> String {
    let error = source.parse::<Cron>().expect_err(source);
    assert_eq!(error.field(), Some("cron"));
    error.to_string()
}

#[test]
fn fields_hold_numbers_ranges_steps_and_lists() {
    let [minutes, hours, days, months, weekdays] = values("5,*/25,7-9 20/2 1-31/10 JAN-MAR,DEC MON,5-7");
    assert_eq!(minutes, [0, 5, 7, 8, 9, 25, 50]);
    assert_eq!(hours, [20, 22]);
    assert_eq!(days, [1, 11, 21, 31]);
    assert_eq!(months, [1, 2, 3, 12]);
    assert_eq!(weekdays, [0, 1, 5, 6]);
}

#[test]
fn nicknames_stand_for_expressions() {
    for (nickname, expression) in NICKNAMES {
        assert_eq!(values(nickname), values(expression));
        assert_eq!(nickname.parse::<Cron>().unwrap().to_string(), nickname);
    }
}

#[test]
fn oddities_of_the_reference() {
    assert_eq!(values("* * * * */7")[4], [0]);
    assert_eq!(values("* * * * 1/6")[4], [0, 1]);
    assert_eq!(values("* * * JANFEB SUNMON")[3..], [vec![12], vec![1]]);
    assert_eq!(values("* * * */OCT *")[3], [1, 11]);
    assert_eq!(values("\u{661}\u{ff15} 007 * * *")[..2], [vec![15], vec![7]]);
    assert_eq!(values("0\u{2003}0\t*\n*\x1c*"), values("0 0 * * *"));
    for refused in
        ["*/05 * * * *", "*/\u{665} * * * *", "*/100 * * * *", "* * * * FRI-MON", "50-65/20 * * * *", "\u{b2} * * * *"]
    {
        error(refused);
    }
}

#[test]
fn errors_name_the_field_and_show_the_place() {
    assert_eq!(error("0 25 * * *"), "cron: hour must be 0-23, got 25\n  0 25 * * *\n    ^^");
    assert_eq!(error("0 0 1-32/2 * *"), "cron: day of month must be 1-31, got 32\n  0 0 1-32/2 * *\n        ^^");
    assert_eq!(error("* * * * 1,9"), "cron: day of week must be 0-7 or SUN-SAT, got 9\n  * * * * 1,9\n            ^");
    assert_eq!(error("*/0 * * * *"), "cron: minute must have a step of 1-99, got 0\n  */0 * * * *\n    ^");
    assert_eq!(
        error("9-5 * * * *"),
        "cron: minute must have its range from low to high, got 9-5\n  9-5 * * * *\n  ^^^"
    );
    assert_eq!(
        error("0\t0  * JAN,feb *"),
        "cron: month must be 1-12 or JAN-DEC, a range of them (a-b), * or a step (*/n, a/n, a-b/n), got feb\n  \
         0 0  * JAN,feb *\n             ^^^"
    );
    assert!(error("1,,2 * * * *").ends_with(", got nothing\n  1,,2 * * * *\n    ^"));
    assert!(error("99999999999999999999 * * * *").starts_with("cron: minute must be 0-59, got 9999"));
}

#[test]
fn errors_count_the_fields() {
    let five = "an expression is five fields, got";
    assert_eq!(error("* * *"), format!("cron: month is missing, {five} 3\n  * * *\n       ^"));
    assert_eq!(
        error("* * * * * *"),
        format!("cron: nothing may follow day of week, {five} 6\n  * * * * * *\n            ^")
    );
    assert_eq!(error(""), format!("cron: minute is missing, {five} 0\n  \n  ^"));
    assert_eq!(error(" * * * * *"), "cron: no space may stand before minute\n   * * * * *\n  ^");
    assert_eq!(error("* * * * * "), "cron: no space may follow day of week\n  * * * * * \n           ^");
    let every = "cron: every is no expression, give it as a duration: Cron::every, NewCron::every";
    assert_eq!(error("@every 5m"), format!("{every}\n  @every 5m\n  ^^^^^^^^^"));
    let nicknames = "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @reboot";
    assert_eq!(error("@Daily"), format!("cron: a nickname must be {nicknames}, got \"@Daily\"\n  @Daily\n  ^^^^^^"));
}
