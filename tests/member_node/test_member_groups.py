"""A node's consent to a cohort summed in groups: as many as were voted for, each audited by its own."""

from dataclasses import replace

import pytest
from test_member_consent import OTHER, consent, recorded, refused

from fedproto.governance.charter import Role
from fedproto.governance.plan import Combine
from member_node.consent import Mark

MORE = tuple(f"t{number:02d}" for number in range(14))
NAMES = tuple(sorted(("honda", "nec", "softbank", "sony", *MORE)))
GROUPS = (NAMES[0::3], NAMES[1::3], NAMES[2::3])


@pytest.fixture
def large(monkeypatch, make_world, plan_of):
    """A mandate for eighteen members in three groups."""
    roles = make_world.__init__.__globals__["_ROLES"]
    for name in MORE:
        monkeypatch.setitem(roles, name, (Role.TRAINER, Role.WITNESS))
    world = make_world()
    summing = replace(plan_of().aggregation, groups=3, combine=Combine.MEDIAN)
    world.propose(plan_of(members=NAMES, min_members=4, aggregation=summing))
    world.approve(NAMES)
    return world


def test_the_groups_that_were_voted_for_are_consented_to(large, site):
    assert consent(large, recorded(large, groups=3), site).mark == Mark(1, 1)


@pytest.mark.parametrize("groups", [1, 4])
def test_other_groups_than_were_voted_for_are_forged(large, site, groups):
    """One sum would be open to a single poisoned delta; four hide less than three."""
    honest = recorded(large, groups=3)
    refused("RNM-CONSENT-0005", consent, large, replace(honest, groups=groups), site)


def test_a_round_is_built_upon_when_each_group_looked_at_its_sum(large, site):
    recorded(large, groups=3)
    # Six members, one colluder: four of each.
    auditors = [name for group in GROUPS for name in group[:4]]
    large.close(model_out=OTHER, auditors=auditors, groups=GROUPS)
    content = recorded(large, groups=3)
    assert consent(large, content, replace(site, last=Mark(1, 1))).mark == Mark(2, 1)


def test_no_node_goes_on_from_a_group_that_too_few_looked_at(large, site):
    """All of two groups and three of the third: fifteen of eighteen, and yet not enough."""
    recorded(large, groups=3)
    auditors = [*GROUPS[0], *GROUPS[1], *GROUPS[2][:3]]
    large.close(model_out=OTHER, auditors=auditors, groups=GROUPS)
    content = recorded(large, groups=3)
    refusal = refused("RNM-CONSENT-0007", consent, large, content, site)
    assert "3 members audited its sum, fewer than 4" in refusal.why
