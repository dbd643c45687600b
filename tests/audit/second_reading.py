"""The charter read a second time: raw payloads in, yes or no out.

An oracle for tests, written from the charter's text in plain loops, with one whole recount of the log for
every act. It imports nothing, and so shares no line with the rules that it is compared with. `log` is
the entries so far, each a leaf hash and the JSON of its payload.
"""


def charter_in_force(log):
    found = None
    for _, act in log:
        if act["type"] == "charter.adopted":
            found = act["body"]
    return found


def roles_of(charter, who):
    for member in charter["members"]:
        if member["id"] == who:
            return member["roles"]
    return []


def holds(charter, who, roles):
    return any(role in roles for role in roles_of(charter, who))


def drops(act, who):
    """Whether an amendment leaves somebody out: seat, keys and standing end with it."""
    return act["type"] == "charter.adopted" and not roles_of(act["body"]["charter"], who)


def has_seat(log, who):
    seated = False
    for index, (_, act) in enumerate(log):
        if act["actor"]["member"] == who and (index == 0 or act["type"] == "member.admitted"):
            seated = True
        if drops(act, who):
            seated = False
    return seated


def standing_of(log, who):
    standing = "active"
    for _, act in log:
        if act["type"] == "member.status" and act["body"]["member"] == who:
            standing = act["body"]["standing"]
        if drops(act, who):
            standing = "active"
    return standing


def key_ended(log, key):
    return any(act["type"] == "key.changed" and act["body"]["key"] == key for _, act in log)


def votes_on(log, proposal):
    return [(leaf, act) for leaf, act in log if act["type"] == "vote.cast"
            and act["body"]["proposal"] == proposal]  # fmt: skip


def is_decided(log, proposal):
    deciding = ("member.status", "key.changed", "charter.adopted", "run.approved")
    return any(a["type"] in deciding and a["body"]["proposal"] == proposal for _, a in log)


def asked(log, opened):
    """Every (charter, action, subject) whose clause a proposal must meet."""
    now, terms = charter_in_force(log)["charter"], opened["body"]["terms"]
    if opened["body"]["action"] != "charter.amend":
        return [(now, opened["body"]["action"], terms.get("member", ""))]
    new = terms["charter"]
    before = [member["id"] for member in now["members"]]
    after = [member["id"] for member in new["members"]]
    found = [(now, "charter.amend", ""), (new, "charter.amend", "")]
    found += [(now, "member.admit", "") for name in after if name not in before]
    found += [(now, "member.status", name) for name in before if name not in after]
    return found


def voters_on(log, charter, action, subject):
    rules, names = charter["actions"][action], []
    for member in charter["members"]:
        name = member["id"]
        if not holds(charter, name, rules["vote"]) or standing_of(log, name) != "active":
            continue
        if not has_seat(log, name):
            continue
        if rules["rule"] == "all-but-subject" and name == subject:
            continue
        names.append(name)
    return names


def meets(log, charter, action, subject, votes):
    voters, yes = voters_on(log, charter, action, subject), 0
    for _, vote in votes:
        if vote["body"]["choice"] == "veto":
            return False
        if vote["actor"]["member"] in voters and vote["body"]["choice"] == "yes":
            yes += 1
    rules = charter["actions"][action]
    if rules["rule"] == "count":
        return yes >= rules["yes"]
    return yes == len(voters) and yes > 0


def counted_yes(log, opened, votes):
    """The yes ballots of those who have a vote now: (leaf, who)."""
    counted = []
    for leaf, vote in votes:
        who = vote["actor"]["member"]
        for charter, action, subject in asked(log, opened):
            if vote["body"]["choice"] == "yes" and who in voters_on(log, charter, action, subject):
                counted.append((leaf, who))
                break
    return counted


def find_open(log, proposal):
    """A proposal that is not decided and that no amendment has ended."""
    now = charter_in_force(log)["sha256"]
    for leaf, act in log:
        if leaf == proposal and act["type"] == "proposal.opened" and act["charter"] == now:
            return None if is_decided(log, leaf) else act
    return None


def carries(log, decision, action):
    """Whether a decision follows: its proposal is carried, and it cites the votes that carry it."""
    opened = find_open(log, decision["body"]["proposal"])
    if opened is None or opened["body"]["action"] != action:
        return False
    votes = votes_on(log, decision["body"]["proposal"])
    for charter, each, subject in asked(log, opened):
        if not meets(log, charter, each, subject, votes):
            return False
    cited = sorted(leaf for leaf, _ in counted_yes(log, opened, votes))
    return decision["body"]["votes"] == cited


def writes_down(log, act, action):
    now = charter_in_force(log)["charter"]
    return holds(now, act["actor"]["member"], ["operator", *now["actions"][action]["propose"]])


def may_vote(log, act):
    body, who = act["body"], act["actor"]["member"]
    opened = find_open(log, body["proposal"])
    if opened is None or body["terms_sha256"] != opened["body"]["terms_sha256"]:
        return False
    if act["at"] > opened["body"]["closes_at"]:
        return False
    for _, vote in votes_on(log, body["proposal"]):
        if vote["actor"]["member"] == who:
            return False
    rules = charter_in_force(log)["charter"]["actions"][opened["body"]["action"]]
    if body["choice"] == "veto" and not holds(charter_in_force(log)["charter"], who, rules["veto"]):
        return False
    for charter, action, subject in asked(log, opened):
        if who in voters_on(log, charter, action, subject):
            return True
    return False


def may_change_standing(log, act):
    body, now = act["body"], charter_in_force(log)["charter"]
    who, standing = body["member"], standing_of(log, body["member"])
    if not has_seat(log, who) or not roles_of(now, who):
        return False
    if standing in ("withdrawn", "expelled") or standing == body["standing"]:
        return False
    if not body["proposal"]:
        return act["actor"]["member"] == who
    opened = find_open(log, body["proposal"])
    if not writes_down(log, act, "member.status") or not carries(log, act, "member.status"):
        return False
    return opened["body"]["terms"] == {"member": who, "standing": body["standing"]}


def may_end_key(log, act):
    body = act["body"]
    opened = find_open(log, body["proposal"])
    if not writes_down(log, act, "key.revoke") or not carries(log, act, "key.revoke"):
        return False
    owner = opened["body"]["terms"]["member"]
    if key_ended(log, body["key"]) or not roles_of(charter_in_force(log)["charter"], owner):
        return False
    return opened["body"]["terms"] == {
        "member": owner, "key": body["key"], "reason": body["reason"]
    }  # fmt: skip


def may_amend(log, act):
    opened = find_open(log, act["body"]["proposal"])
    if not writes_down(log, act, "charter.amend") or not carries(log, act, "charter.amend"):
        return False
    return opened["body"]["terms"]["charter"] == act["body"]["charter"]


def may_mandate(log, act):
    body = act["body"]
    opened = find_open(log, body["proposal"])
    operator = holds(charter_in_force(log)["charter"], act["actor"]["member"], ["operator"])
    if not operator or not carries(log, act, "run.approve"):
        return False
    yes = [who for _, who in counted_yes(log, opened, votes_on(log, body["proposal"]))]
    willing = [name for name in body["plan"]["members"] if name in yes]
    if body["members"] != willing or len(willing) < body["plan"]["min_members"]:
        return False
    trainers = [
        member["id"]
        for member in charter_in_force(log)["charter"]["members"]
        if "trainer" in member["roles"]
    ]
    return all(name in trainers for name in body["plan"]["members"])


def allowed(log, act):
    """Whether an act follows from the log before it, read from the charter alone."""
    who, now = act["actor"]["member"], charter_in_force(log)
    if not roles_of(now["charter"], who) or not has_seat(log, who):
        return act["type"] == "member.admitted" and bool(roles_of(now["charter"], who))
    if act["charter"] != now["sha256"] or key_ended(log, act["actor"]["key"]):
        return False
    leaves = act["type"] == "member.status" and not act["body"]["proposal"]
    if standing_of(log, who) != "active" and not leaves:
        return False
    return {
        "vote.cast": may_vote,
        "member.status": may_change_standing,
        "key.changed": may_end_key,
        "charter.adopted": may_amend,
        "run.approved": may_mandate,
    }[act["type"]](log, act)
