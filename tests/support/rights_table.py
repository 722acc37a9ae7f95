"""The rights that every call of the agency API needs, written down by hand beside the route table.

One row a call: its name; the functions a certificate needs one of; the functions an officer's account needs one of
(``=``: the same); marks. A call without a row, a row without a call and a difference fail ``test_http_rights``, so that
a right changes only where somebody changes it twice.

Marks: ``act``, an officer's act, also where systems have the function; ``sign``, by which officers sign in, with no
function asked; ``cards``, cards may make it beside accounts; ``session``, only in a session. What an officer may do who
has the function for one affair (事務) only: ``held``, no more than what is of his affair, asked of the message;
``looked``, asked of the queries that the path names; ``part``, he sees or may decide his part; ``whole``, nothing of an
affair is in it; none of them: nothing.
"""

from dataclasses import dataclass
from typing import Final

OFFICERS_ONLY: Final = frozenset({"reviews.prepare", "reviews.approve", "order"})
"""Functions that no system may use, whatever it was granted."""

ANY_ACCOUNT: Final = (
    "administer,codes,copies,holds,order,queries,records,residents,reviews.approve,reviews.prepare"  # every function
)

TABLE: Final = f"""
postQueries                queries                            =               held
listQueries                queries                            =               whole
getQuery                   queries                            =               looked
collectQuery               queries                            =               looked
cancelQuery                queries                            =               looked
resendQuery                queries                            =               looked,act
postQueryFile              queries                            =
getQueryFile               queries                            =
getQueryFileResult         queries                            =
followEvents               queries                            =               whole
askHolders                 queries                            =               held
askCodes                   codes                              =
searchCodes                codes                              =
relinkCode                 reviews.prepare                    =
mergeCodes                 reviews.prepare                    =
confirmLink                reviews.approve                    =
listCodeChanges            reviews.prepare,reviews.approve    =
codeHistory                reviews.prepare,reviews.approve    =
requestAcquisition         queries                            =
listAcquisitionRequests    codes                              =
fulfilAcquisitionRequest   codes                              =
postCodeFile               codes                              =
getCodeFile                codes                              =
getCodeFileResult          codes                              =
postCopies                 copies                             =
searchCopies               copies                             =
exportCopies               copies                             =
deleteCopies               copies                             =
postHolds                  holds                              =
openLoad                   copies                             =
getLoad                    copies                             =
putLoadPart                copies                             =
commitLoad                 copies                             =
releaseLoad                order                              =
compareLoad                copies                             =
abortLoad                  copies                             =
listReviews                reviews.prepare,reviews.approve    =               part
prepareReview              reviews.prepare                    =               part
approveReview              reviews.approve                    =               part
refuseReview               reviews.approve                    =               part
listDelegations            order,queries                      =
postDelegation             order                              =
approveDelegation          order                              =
endDelegation              order                              =
correctRecord              records                            =               act
listRecords                records                            =               part
searchRecords              records                            =               part
getCheckpoint              records                            =
getConsistency             records                            =
getRecordProof             records                            =
exportRecords              records                            =
residentRecords            residents,records                  =
getStatistics              records                            =
getProcedureStatistics     records                            =
findAffected               records                            =
listLinks                  order,queries                      =
suspendLink                order                              =
resumeLink                 order                              =
revokeLink                 order                              =
challengeOfficer           order                              {ANY_ACCOUNT}   sign
loginOfficer               order                              {ANY_ACCOUNT}   sign
enrolOfficer               order                              {ANY_ACCOUNT}   sign
logoutOfficer              order                              {ANY_ACCOUNT}   whole,session
changePassword             order                              {ANY_ACCOUNT}   whole,session
showSession                order                              {ANY_ACCOUNT}   whole,session
listOfficers               order                              administer      cards
listOfficerChanges         order                              administer      cards
proposeOfficerChange       order                              administer      cards
approveOfficerChange       order                              administer      cards
rejectOfficerChange        order                              administer      cards
listOperations             order                              administer
getOperationsCheckpoint    order                              administer
getOperationsConsistency   order                              administer
exportOperations           order                              administer
getOperationProof          order                              administer
listNotices                queries,codes,copies,records,order =
readNotice                 queries,codes,copies,records,order =
getCalendar                queries,codes,copies,records,order =
"""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one call needs."""

    card: tuple[str, ...]
    account: tuple[str, ...]
    marks: frozenset[str]


def _row(words: list[str]) -> Needs:
    card = tuple(words[1].split(","))
    account = card if words[2] == "=" else tuple(words[2].split(","))
    return Needs(card, account, frozenset(words[3].split(",") if len(words) > 3 else ()))


NEEDS: Final = {words[0]: _row(words) for words in (line.split() for line in TABLE.strip().splitlines())}
