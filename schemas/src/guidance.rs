//! The text that a caller reads in Chinese, and the advice: the table that `errors.md` is made of.
//!
//! A pure table; nothing to lose. `errors.md` is made from it, never the other way.

use std::fmt::Write as _;

use crate::codes::{Code, Reason, Rule};

/// The words beside a code's English sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guidance {
    /// The sentence in Chinese.
    pub chinese: &'static str,
    /// The remedy.
    pub remedy: &'static str,
    /// The same in Chinese.
    pub remedy_chinese: &'static str,
}

const fn guide(chinese: &'static str, remedy: &'static str, remedy_chinese: &'static str) -> Guidance {
    Guidance { chinese, remedy, remedy_chinese }
}

/// A row for each code, in the order of [`Code::ALL`].
const GUIDANCE: [(Code, Guidance); Code::ALL.len()] = [
    (Code::Ok, guide("已准许。", "Nothing to do.", "无需处理。")),
    (
        Code::NotPermitted,
        guide(
            "无权访问，或不存在。",
            "Check the license, the grant, its end, fields and item. An operator finds the reason in the journal; a development exchange logs it.",
            "请核对证照、授权及其期限、字段和事项。运营方可在日志中查到原因；开发环境会直接记录。",
        ),
    ),
    (
        Code::UnknownParticipant,
        guide(
            "贵单位不在参与方登记册中。",
            "Ask an operator to register the organisation of your client certificate.",
            "请运营方登记客户端证书所属单位。",
        ),
    ),
    (
        Code::ParticipantSuspended,
        guide(
            "贵单位已被暂停，或单位登记、证书不在有效期内。",
            "Renew the certificate or the registration, or ask an operator to lift the suspension.",
            "请更新证书或登记，或请运营方解除暂停。",
        ),
    ),
    (
        Code::WrongRole,
        guide(
            "贵单位的角色不允许此操作。",
            "Use an organisation with the role, or ask operators to change the registration.",
            "请使用具有相应角色的单位，或请运营方变更登记。",
        ),
    ),
    (
        Code::NoSuchRoute,
        guide("没有此接口。", "Take the path from `/openapi.json`.", "请以 `/openapi.json` 中的路径为准。"),
    ),
    (Code::MethodNotAllowed, guide("此接口不支持该方法。", "Use POST.", "请使用 POST。")),
    (
        Code::WrongContentType,
        guide(
            "此接口不接受该内容类型。",
            "Send `application/json`; verify and retrieve also take `application/vnd.miaoxiang+flatbuffers`.",
            "请发送 `application/json`；核验和取用也接受 `application/vnd.miaoxiang+flatbuffers`。",
        ),
    ),
    (
        Code::BodyTooLarge,
        guide(
            "请求体超过此接口的上限。",
            "Send less than the bound in `/openapi.json`.",
            "请将请求体控制在 `/openapi.json` 所述上限之内。",
        ),
    ),
    (
        Code::BadUtf8,
        guide(
            "请求体不是 UTF-8。",
            "Encode the body as UTF-8; a body in GBK is not read.",
            "请以 UTF-8 编码请求体；不接受 GBK。",
        ),
    ),
    (
        Code::MalformedRequest,
        guide(
            "请求体不是此接口要求的文档。",
            "Correct what `errors` lists, or the JSON at the line and column of `detail`.",
            "请按 `errors` 逐项更正，或更正 `detail` 所指行列处的 JSON。",
        ),
    ),
    (
        Code::UnknownField,
        guide(
            "请求体中有此接口不认识的成员。",
            "Take out the members that `errors` lists.",
            "请删除 `errors` 所列成员。",
        ),
    ),
    (Code::DuplicateKey, guide("请求体中有重复的成员。", "Send each member once.", "每个成员只能出现一次。")),
    (
        Code::BadIdentifier,
        guide(
            "证照标识无法识别。",
            "Send the identifier as it was given, character by character.",
            "请逐字符按原样发送证照标识。",
        ),
    ),
    (
        Code::WrongCheckDigit,
        guide(
            "校验码有误。",
            "Compare the number that `errors` names with the document.",
            "请将 `errors` 所指号码与原件核对。",
        ),
    ),
    (
        Code::BadHolder,
        guide(
            "持证主体的类型代码、号码或名称无法识别。",
            "Correct what `errors` lists.",
            "请按 `errors` 逐项更正。",
        ),
    ),
    (
        Code::BadSerial,
        guide(
            "流水号应为 1 至 64 位 0-9A-Z，且不得为持证主体号码。",
            "Choose another serial.",
            "请另取流水号。",
        ),
    ),
    (
        Code::UnknownType,
        guide("没有此证照类型。", "Take the code from `/types`.", "请以 `/types` 中的代码为准。"),
    ),
    (
        Code::BadUseContext,
        guide(
            "用证信息缺失，或其中某项缺失、过长、不合规。",
            "Send all six parts; `errors` names the wrong ones.",
            "请提供全部六项；有误的见 `errors`。",
        ),
    ),
    (
        Code::BadFields,
        guide(
            "证照内容不符合其类型定义。",
            "Correct what `errors` lists; the definition is in `/types`.",
            "请按 `errors` 逐项更正；类型定义见 `/types`。",
        ),
    ),
    (
        Code::BadGrant,
        guide("授权无法按请求办理。", "Correct what `errors` lists.", "请按 `errors` 逐项更正。"),
    ),
    (
        Code::BadParticipant,
        guide("参与方无法按请求登记。", "Correct what `errors` lists.", "请按 `errors` 逐项更正。"),
    ),
    (
        Code::BadEnvelope,
        guide(
            "证照文件无法读取。",
            "Send the signed bytes as they were given, in base64.",
            "请以 base64 发送原样的签名字节。",
        ),
    ),
    (
        Code::IdentifierExists,
        guide(
            "相同类型、发证机关和流水号的证照已存在。",
            "Choose another serial, or make a new version with operation 02 or 09.",
            "请另取流水号，或以操作 02、09 制作新版本。",
        ),
    ),
    (
        Code::TransitionNotAllowed,
        guide(
            "证照当前状态不允许此操作。",
            "Take an operation that `errors` allows.",
            "请采用 `errors` 中允许的操作。",
        ),
    ),
    (
        Code::IdempotencyConflict,
        guide(
            "该幂等键已用于另一请求。",
            "Use a fresh key for each new request.",
            "每个新请求请使用新的幂等键。",
        ),
    ),
    (
        Code::IdempotencyKeyRequired,
        guide(
            "此接口需要 16 至 64 个可打印字符的 Idempotency-Key。",
            "Send one `Idempotency-Key` header.",
            "请发送一个 `Idempotency-Key` 头。",
        ),
    ),
    (
        Code::ParticipantConflict,
        guide(
            "参与方的登记状况不允许此操作。",
            "Register who is new, change who is registered.",
            "新单位请登记，已登记的请变更。",
        ),
    ),
    (
        Code::TooManyMismatches,
        guide(
            "今日对该证照的比对失败次数过多。",
            "Wait for the next day (China Standard Time), and check the values before.",
            "请于次日（北京时间）再试，并先核实所填信息。",
        ),
    ),
    (
        Code::QuotaSpent,
        guide(
            "贵单位今日的用证额度已用完。",
            "Wait for the next day (China Standard Time), or ask an operator for a higher quota.",
            "请于次日（北京时间）再试，或请运营方提高额度。",
        ),
    ),
    (
        Code::DelayNotAllowed,
        guide(
            "贵单位不具有该延迟告知类别。",
            "Leave `delay` out, or have operators register the class.",
            "请去掉 `delay`，或请运营方登记该类别。",
        ),
    ),
    (
        Code::BadLink,
        guide(
            "监护或代理关系无法按请求建立或终止。",
            "Correct what `errors` lists.",
            "请按 `errors` 逐项更正。",
        ),
    ),
    (
        Code::ErasureRefused,
        guide(
            "不得删除该持证主体。",
            "`detail` names the rule; wait for it or end what it names.",
            "规则见 `detail`；请待其届满或先行解除。",
        ),
    ),
    (
        Code::ProposalRefused,
        guide(
            "提案无法提出或批准。",
            "`detail` names the rule; make a new proposal.",
            "规则见 `detail`；请重新提出提案。",
        ),
    ),
    (Code::Erased, guide("内容已随持证主体的密钥一并销毁。", "Nothing brings it back.", "无法恢复。")),
    (
        Code::NeedsTwoOperators,
        guide(
            "此操作需要提案并由另一运营方批准。",
            "Propose it, and let another operator approve.",
            "请提出提案，由另一运营方批准。",
        ),
    ),
    (
        Code::Overloaded,
        guide(
            "系统繁忙，请重试。",
            "Try again after `Retry-After`, with the same idempotency key.",
            "请在 `Retry-After` 之后以同一幂等键重试。",
        ),
    ),
    (
        Code::TooManyRefusals,
        guide(
            "被拒绝的请求过多，请稍后再试。",
            "Correct the requests; the budget fills again by the second.",
            "请先更正请求；额度按秒恢复。",
        ),
    ),
    (
        Code::RequestTimeout,
        guide("请求未按时到达。", "Send the whole body at once.", "请一次发送完整请求体。"),
    ),
    (
        Code::JournalFull,
        guide(
            "日志空间不足，请稍后再试。",
            "The operator makes room; then try again with the same idempotency key.",
            "由运营方扩充空间；之后以同一幂等键重试。",
        ),
    ),
    (
        Code::FactsChanged,
        guide(
            "裁决期间事实发生变化，请重试。",
            "Try again with the same idempotency key.",
            "请以同一幂等键重试。",
        ),
    ),
    (
        Code::SignerUnavailable,
        guide(
            "发证机关的签名服务无响应，请重试。",
            "Try again with the same idempotency key; the operator looks after the signer.",
            "请以同一幂等键重试；由运营方检查签名服务。",
        ),
    ),
    (
        Code::Internal,
        guide(
            "系统暂时无法作答；请以同一幂等键重试。",
            "Try again with the same idempotency key; the operator finds the cause in the log.",
            "请以同一幂等键重试；运营方可在运行日志中查到原因。",
        ),
    ),
    (
        Code::RecordUnavailable,
        guide(
            "记录无法读取：已归档或已损坏，须由运营方处理。",
            "The operator brings the archive back, or restores what is damaged.",
            "由运营方恢复归档或修复损坏部分。",
        ),
    ),
    (
        Code::MalformedHttp,
        guide(
            "收到的不是 HTTP 请求。",
            "Send HTTP/1.1 or HTTP/2 as its standard says; a library does.",
            "请按标准发送 HTTP/1.1 或 HTTP/2；建议使用成熟的库。",
        ),
    ),
    (
        Code::HeadTooLarge,
        guide(
            "请求行与请求头过长，合计上限为 16 KiB。",
            "Send fewer or shorter headers.",
            "请减少或缩短请求头。",
        ),
    ),
    (
        Code::BadHost,
        guide("请求应当恰有一个 Host 头。", "Send one `Host` header.", "请只发送一个 `Host` 头。"),
    ),
    (
        Code::ExpectationFailed,
        guide(
            "HTTP/2 不发送 100 Continue。",
            "Send the body at once, without `Expect`.",
            "请直接发送请求体，不带 `Expect`。",
        ),
    ),
    (
        Code::BrokenBody,
        guide(
            "请求体在传输中断开或分块有误。",
            "Send the body as HTTP says; a library does.",
            "请按 HTTP 标准发送请求体；建议使用成熟的库。",
        ),
    ),
    (
        Code::NoSigningKey,
        guide(
            "发证机关在此没有可用的签名密钥。",
            "The operator adds a key with `certs issuer add`; trying again does not help.",
            "由运营方以 `certs issuer add` 添加密钥；重试无效。",
        ),
    ),
    (
        Code::LogClosed,
        guide("该日志已永久关闭。", "Use the exchange that continues the log.", "请改用承接该日志的系统。"),
    ),
    (
        Code::LicenseEnded,
        guide(
            "证照不在有效状态。取用其签名字节需指明 `includeEnded`，凭授权取用的还需授权含 `ended` 模式。",
            "Send `includeEnded: true`; a grant needs the mode `ended`.",
            "请发送 `includeEnded: true`；授权须含 `ended` 模式。",
        ),
    ),
    (
        Code::BadType,
        guide(
            "证照类型无法按请求发布。",
            "Correct what `errors` lists; keep every field where it was.",
            "请按 `errors` 逐项更正；原有字段须保留在原位置。",
        ),
    ),
    (
        Code::BadResource,
        guide(
            "资源目录条目不符合要求。",
            "`errors` names each member and what would be right. Of a published resource fields stay where they are.",
            "`errors` 指出有误的内容及正确形式。已发布资源的原有信息项须保持不变。",
        ),
    ),
    (
        Code::UnknownResource,
        guide(
            "目录中没有此资源。",
            "Find the code with `/v1/resources/search`.",
            "请用 `/v1/resources/search` 查询资源代码。",
        ),
    ),
    (
        Code::ResourceRefused,
        guide(
            "资源的状态不允许此操作。",
            "`detail` says why: a draft is published first, a suspended resource resumed, a missing duty named.",
            "`detail` 说明原因：草稿须先发布，暂停的资源须先恢复，缺少的责任单位须先补齐。",
        ),
    ),
    (
        Code::BadApplication,
        guide(
            "申请或答复内容有误。",
            "`errors` names each member and what would be right. An approval is never wider than what was asked.",
            "`errors` 指出有误的内容及正确形式。同意的范围不得超出申请。",
        ),
    ),
    (
        Code::ApplicationRefused,
        guide(
            "申请的状态不允许此操作。",
            "`detail` says why; `/v1/applications/list` shows where the application stands.",
            "`detail` 说明原因；可用 `/v1/applications/list` 查看申请的状态。",
        ),
    ),
    (
        Code::ApprovalNeeded,
        guide(
            "此项使用须先获同意。",
            "Apply as `accessRequest` says, with its template; `detail` says why there is no approval.",
            "请按 `accessRequest` 及其模板提出申请；`detail` 说明没有同意的原因。",
        ),
    ),
    (
        Code::BadCalendar,
        guide(
            "不是带有通知文号的年度放假安排。",
            "Take the days off and the make-up days from the notice of the State Council's office, with its number.",
            "请按国务院办公厅通知填写放假与调休日期及文号。",
        ),
    ),
    (
        Code::BadRecords,
        guide(
            "查询或数据行与资源定义不符。",
            "`errors` names each member. The catalogue says which fields find a row.",
            "`errors` 指出有误的内容。查询所用的信息项见资源目录。",
        ),
    ),
    (
        Code::ProviderUnavailable,
        guide(
            "数据提供方无法连接，未向其发送任何内容，请重试。",
            "Ask again after `Retry-After`, also with the same idempotency key. `detail` names the cause.",
            "请在 `Retry-After` 之后重试，可使用同一幂等键。`detail` 说明原因。",
        ),
    ),
    (
        Code::ProviderWrong,
        guide(
            "数据提供方的应答无法使用。",
            "Tell the provider. A new call takes another idempotency key.",
            "请联系数据提供方。再次调用须使用新的幂等键。",
        ),
    ),
    (
        Code::ProviderLate,
        guide(
            "数据提供方未在规定时间内应答。",
            "Ask later. A new call takes another idempotency key.",
            "请稍后再查询。再次调用须使用新的幂等键。",
        ),
    ),
    (
        Code::OutcomeUnknown,
        guide(
            "该幂等键下已发起过一次调用，其结果未知或不再给出。",
            "Ask under another idempotency key, if the data are still needed: that is another call and another use.",
            "如仍需数据，请使用新的幂等键查询；这是另一次调用，另计一次使用。",
        ),
    ),
    (
        Code::BadItems,
        guide(
            "与事项、材料词典不符。",
            "`errors` names each member. Materials are imported before items, and items before mappings.",
            "`errors` 指出有误的内容。先导入材料，再导入事项，最后导入关联关系。",
        ),
    ),
    (
        Code::UnknownItem,
        guide(
            "事项词典中没有该事项，或者该事项已取消。",
            "`use.itemCode` is the item's code. The operator imports items: `exchange import items`.",
            "`use.itemCode` 为事项编码。事项由运营方导入：`exchange import items`。",
        ),
    ),
    (
        Code::BadRequestSignature,
        guide(
            "请求签名缺失或者无效。",
            "`errors` names the header. The guide `request-signatures.md` says what is signed, and with which key.",
            "`errors` 指出有误的请求头。签名内容和所用密钥见指南 `request-signatures.md`。",
        ),
    ),
    (
        Code::AssertionRefused,
        guide(
            "身份断言缺失或不成立。",
            "`detail` names the cause. Have the person sign in at the identity provider again, and send the new assertion once.",
            "原因见 `detail`。请本人在身份认证平台重新登录，并将新的断言使用一次。",
        ),
    ),
    (
        Code::PurposeNotAgreed,
        guide(
            "贵单位的接入协议中没有该用途。",
            "`use.purpose` is one of the purposes in the registration: `/v1/participants/list` shows them. Operators register others.",
            "`use.purpose` 应为登记用途之一，可用 `/v1/participants/list` 查看；其他用途由运营方登记。",
        ),
    ),
    (
        Code::BadPolicy,
        guide(
            "授权策略无法读取，或不符合其模式。",
            "`exchange policy check FILE` says line, column and fault. The policies in force stay.",
            "`exchange policy check FILE` 会指出行、列和错误；现行策略不变。",
        ),
    ),
    (
        Code::BeyondIntendedUse,
        guide(
            "超出贵单位用证清单的范围。",
            "`errors` names the part that is beyond the list, and what its line allows. Ask for less, or have the operator import another line.",
            "`errors` 指出超出清单的部分及该行允许的范围。请缩小申请范围，或请运营方导入新的清单行。",
        ),
    ),
    (
        Code::ActingForRefused,
        guide(
            "贵单位未登记代该单位用证。",
            "`use.actingFor` is one of `actsFor` in the registration: `/v1/participants/list` shows them. Operators register others.",
            "`use.actingFor` 应为登记的 `actsFor` 之一，可用 `/v1/participants/list` 查看；其他单位由运营方登记。",
        ),
    ),
    (
        Code::UseNotAgreed,
        guide(
            "贵单位的接入限额不包含此接口和证照类型。",
            "`/v1/usage` shows the lines of your limits. Operators register others.",
            "可用 `/v1/usage` 查看限额各项；其他接口和类型由运营方登记。",
        ),
    ),
    (
        Code::RateExceeded,
        guide(
            "贵单位本时段的用证次数已用完。",
            "Wait as long as `Retry-After` says; `RateLimit` says what is left.",
            "请按 `Retry-After` 等待；`RateLimit` 给出剩余次数。",
        ),
    ),
    (
        Code::SourceNotAgreed,
        guide(
            "请求来源地址不在贵单位登记的地址范围内。",
            "Connect from a registered address, or have operators register this one. No header is looked at.",
            "请从登记地址连接，或请运营方登记该地址；不采信任何请求头。",
        ),
    ),
    (
        Code::FieldsNotAgreed,
        guide(
            "贵单位的接入限额不包含所要求的字段。",
            "Ask for the fields that `errors` lists, in mode `fields`.",
            "请按 `errors` 所列字段，以 `fields` 模式请求。",
        ),
    ),
    (
        Code::BadCode,
        guide(
            "亮证码无法按要求生成或终止。",
            "Correct what `errors` lists; `detail` says why a code can no longer be ended.",
            "请按 `errors` 更正；`detail` 说明亮证码为何不能再终止。",
        ),
    ),
];

/// A code without its row does not compile.
const _: () = {
    let mut at = 0;
    while at < GUIDANCE.len() {
        assert!(GUIDANCE[at].0.number() == Code::ALL[at].number(), "the rows are in the order of the codes");
        at += 1;
    }
};

impl Code {
    /// The sentence for a caller in Chinese, and the remedy.
    pub const fn guidance(self) -> Guidance {
        let mut at = 0;
        while GUIDANCE[at].0.number() != self.number() {
            at += 1;
        }
        GUIDANCE[at].1
    }

    /// Whether an answer with this code may list `errors`: not where that would tell a fact.
    pub const fn protects_facts(self) -> bool {
        matches!(
            self,
            Self::NotPermitted
                | Self::UnknownParticipant
                | Self::ParticipantSuspended
                | Self::WrongRole
                | Self::TooManyMismatches
                | Self::QuotaSpent
                | Self::Erased
        )
    }
}

impl Rule {
    /// The meaning, in Chinese.
    pub const fn chinese(self) -> &'static str {
        match self {
            Self::Required => "缺少该成员。",
            Self::UnknownMember => "对象没有该成员。",
            Self::DuplicateMember => "该成员重复出现。",
            Self::Type => "值的 JSON 类型不符。",
            Self::Length => "文本的字符数过少或过多。",
            Self::Count => "列表或对象的成员数过少或过多。",
            Self::Range => "数值过小或过大。",
            Self::Pattern => "文本不符合要求的格式。",
            Self::OneOf => "值不在所列范围内。",
            Self::CheckDigit => "格式正确，但校验码有误。",
            Self::Date => "不是有效日期或时间。",
            Self::Text => "文本含有人名、地名等不得含有的字符。",
            Self::NotAllowed => "此处不允许该值。",
            Self::Combination => "这些成员不能同时出现，或缺一不可。",
            Self::Order => "时间早于其应当晚于的时间。",
            Self::Distinct => "应各不相同的值重复出现。",
            Self::Unknown => "没有以此名称登记的对象。",
            Self::Disagrees => "表示同一事实的两个成员不一致。",
        }
    }
}

/// The page `errors.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Refusals\n\n\
        Made from the tables of `src/codes.rs` and `src/guidance.rs`; `cargo xtask bless` writes it anew.\n\n\
        A refusal is a problem document (RFC 9457). `code` is stable, and programs decide by it. Title and detail are in Chinese\n\
        where `Accept-Language` prefers it. `errors` lists what is wrong with which part of the request.\n\n\
        ## Codes\n\n\
        The caller sees the code. \"Protects facts\": the answer is the same whatever the cause, and lists no `errors`.\n\n\
        | code | HTTP | cause | what helps | 说明 | 处理办法 | protects facts |\n|---|---|---|---|---|---|---|\n",
    );
    for code in Code::ALL.iter().filter(|code| **code != Code::Ok) {
        let guidance = code.guidance();
        let protects = if code.protects_facts() { "yes" } else { "" };
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} | {protects} |",
            code.name(),
            code.status(),
            code.meaning(),
            guidance.remedy,
            guidance.chinese,
            guidance.remedy_chinese,
        );
    }
    page.push_str("\n## Rules\n\nThe `rule` of an entry in `errors`. The caller sees it.\n\n| rule | meaning | 含义 |\n|---|---|---|\n");
    for rule in Rule::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", rule.name(), rule.meaning(), rule.chinese());
    }
    page.push_str(
        "\n## Reasons\n\n\
        A reason stands in the journal's sealed part. Operators and auditors see it, and the log of a development exchange.\n\
        The caller sees it only as the `detail` of `erasure-refused` and `proposal-refused`.\n\n\
        | reason | meaning |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.name(), reason.meaning());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_speaks_chinese() {
        let han = |text: &str| text.chars().any(|character| ('\u{4e00}'..='\u{9fff}').contains(&character));
        for code in Code::ALL {
            let guidance = code.guidance();
            assert!(
                han(guidance.chinese) && han(guidance.remedy_chinese) && !han(guidance.remedy),
                "{code:?}"
            );
        }
        assert!(Rule::ALL.iter().all(|rule| han(rule.chinese())));
    }
}
